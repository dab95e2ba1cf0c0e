# Images around one static busybox: quick to make, and enough for formats and platforms.

small_config='{"Env": ["PATH=/bin:/usr/bin", "MADE_BY=celda"], "Cmd": ["/bin/sh"], "WorkingDir": "/"}'

small_layer() {
    local root=$work/busybox-root
    rm -rf "$root"
    mkdir -p "$root"/{bin,etc,tmp,usr/bin}
    chmod 1777 "$root/tmp"
    cp "$(small_program)" "$root/bin/busybox"
    for applet in sh true false cat ls echo id env sleep stat mount ps kill; do ln -s busybox "$root/bin/$applet"; done
    printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    tar_of "$root" "$1" --mtime=@1700000000 --owner=0 --group=0
}

# The path of a static busybox for the images' processor.
small_program() {
    [ "$arch" != "$native" ] || { command -v busybox; return; }
    [ -d "$work/busybox" ] || debian_bootstrap "$work/busybox" --variant=extract --architectures="$arch" --include=busybox-static
    for folder in bin usr/bin; do
        [ ! -f "$work/busybox/$folder/busybox" ] || { echo "$work/busybox/$folder/busybox"; return; }
    done
}

# small_image ARCH KIND: prints the descriptor of a one-layer image.
small_image() {
    local stack=$work/stack
    : >"$stack"
    small_layer "$work/layer.tar"
    add_layer "$stack" "$work/layer.tar" "$2"
    write_manifest "$stack" "$1" "$small_config"
}

small_busybox() { name_descriptor "$(small_image "$arch" gzip)" "$1"; }
small_zstd() { name_descriptor "$(small_image "$arch" zstd)" "$1"; }
small_foreign() { name_descriptor "$(small_image s390x gzip)" "$1"; }

# An index of two platforms, of which one is this machine's.
small_multi() {
    local here_descriptor other_descriptor index=$work/multi.json hex size
    here_descriptor=$(small_image "$arch" gzip)
    other_descriptor=$(small_image "$other" zstd)
    jq -nc --argjson a "$other_descriptor" --argjson b "$here_descriptor" '{schemaVersion: 2,
        mediaType: "application/vnd.oci.image.index.v1+json", manifests: [$a, $b]}' >"$index"
    size=$(stat -c %s "$index")
    hex=$(put_blob "$index")
    name_descriptor "$(jq -nc --arg hex "$hex" --argjson size "$size" '{
        mediaType: "application/vnd.oci.image.index.v1+json", digest: "sha256:\($hex)", size: $size}')" "$1"
}

small_docker_archive() { skopeo copy -q "oci:$layout:busybox:1" "docker-archive:$1:celda-test/busybox:1"; }
