# Shared by the scripts of vm/: where things are, what they are called, and how they fail. Sourced, not run.
#
#   $cache/tools/            programs of this machine's processor: QEMU, virtiofsd, mkfs.erofs, kmod, cpio, with their libraries
#   $cache/root-ARCH.erofs   the guest's programs
#   $cache/kernel-ARCH-NAME/ vmlinuz, initrd, modules.erofs, release
#   $cache/rust/             a compiler with standard libraries for both processors, where rustup has none for the other
set -euo pipefail

here=$(cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")" && pwd)
tree=$(dirname "$here")
cache=${CELDA_VM_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/celda-vm}

# How a command of vm/ ends when the guest's own command has not: as timeout(1) does, and as `celda run` does.
status_time_limit=124
status_no_guest=125

say() { echo "vm: $*" >&2; }
die() {
    say "$*"
    exit "$status_no_guest"
}

# Debian's name of a processor.
debian_arch() {
    case $1 in
        aarch64) echo arm64 ;;
        x86_64) echo amd64 ;;
        *) die "no processor $1: it is aarch64 or x86_64" ;;
    esac
}

host=$(uname -m)

# need PROGRAM PACKAGE...: what this machine must have, each missing thing with the package that brings it.
need() {
    local missing=() packages=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null || { missing+=("$1") packages+=("$2"); }
        shift 2
    done
    [ "${#missing[@]}" = 0 ] || die "missing here: ${missing[*]}: apt-get install ${packages[*]}"
}

# tool PROGRAM ARGS...: one of the cache's, on the cache's own C library, so that any distribution will do.
tool() { (tool_exec 0 "$@"); }

# tool_exec SECONDS PROGRAM ARGS...: the same in this shell's place, ended when the time is up; 0 is no limit.
tool_exec() {
    local libraries=$cache/tools/usr/lib/$host-linux-gnu path= folder
    for folder in usr/bin usr/sbin usr/libexec; do
        [ -x "$cache/tools/$folder/$2" ] && path=$cache/tools/$folder/$2
    done
    [ -n "$path" ] || die "$cache/tools has no $2: remove that folder, then run vm/setup"
    exec timeout -k 5 "$1" "$libraries"/ld-linux-*.so.* --library-path "$libraries" --argv0 "$2" "$path" "${@:3}"
}

# The row of vm/kernels for a processor and a name: suite and package.
kernel_row() {
    local row
    row=$(awk -v arch="$1" -v name="$2" '$1 == arch && $2 == name { print $3, $4 }' "$here/kernels")
    [ -n "$row" ] || die "no kernel $2 for $1: vm/kernels has $(awk -v arch="$1" '$1 == arch { printf "%s ", $2 }' "$here/kernels")"
    echo "$row"
}
