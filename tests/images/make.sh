#!/bin/bash
# Makes real images from Debian packages, for tests and benches. Root, Debian or Ubuntu.
#
#   debian rootfs ──┬─ debian-nginx:1   + layer with nginx
#   (mmdebstrap)    ├─ debian-python:1  + layer with python3
#                   └─ forty:1          + 39 layers, each adding, replacing or removing a little
#   busybox ─────────── busybox:1, busybox-zstd:1, docker.tar, foreign:1, multi:1
#   nothing ─────────── torture:1, torture-wide:1   what the formats allow and few images use (torture.sh)
#
# Result: $CELDA_TEST_IMAGES (default target/test-images), one OCI layout `oci/` whose tags are the names above, and
# docker-archives beside it. What is there already is not made again; `make.sh --force` starts over.
# Packages come from the machine's own apt sources. CELDA_TEST_ARCH=arm64 (or amd64) makes the images of another processor:
# their systems are unpacked and not configured, since nothing of theirs can be run here.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
out=${CELDA_TEST_IMAGES:-$tree/target/test-images}
needs="mmdebstrap umoci skopeo jq zstd busybox-static attr libcap2-bin"

[ "$(id -u)" = 0 ] || { echo "make.sh: images with owners and devices need root: run it with sudo" >&2; exit 1; }
for tool in mmdebstrap umoci skopeo jq zstd busybox setfattr setcap; do
    command -v "$tool" >/dev/null || { echo "make.sh: $tool is missing: apt-get install $needs" >&2; exit 1; }
done
[ "${1:-}" != --force ] || rm -rf "$out"

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
layout=$out/oci
native=$(dpkg --print-architecture)
arch=${CELDA_TEST_ARCH:-$native}
case $arch in amd64) other=arm64 ;; *) other=amd64 ;; esac

. "$here/lib.sh"
. "$here/debian.sh"
. "$here/small.sh"
. "$here/torture.sh"

[ -f "$layout/index.json" ] || umoci init --layout "$layout"
make busybox:1       small_busybox
make busybox-zstd:1  small_zstd
make foreign:1       small_foreign
make multi:1         small_multi
make_file docker.tar small_docker_archive
make torture:1       torture_image
make torture-wide:1  torture_wide
make debian:1        debian_base
make debian-nginx:1  debian_nginx
make debian-python:1 debian_python
make forty:1         debian_forty
make_file docker-nginx.tar debian_docker_archive
say "$(du -sh --apparent-size "$out" | cut -f1) in $out, after ${SECONDS} s"
