# Debian packages without touching this machine's own: apt with lists, state and archives in the cache. Sourced after lib.sh.
#
#   fetch SUITE ARCH with-dependencies|alone PACKAGE...   prints the files; apt checks signatures and digests
#   unpack DIR FILE...                                    as dpkg would, without running anything of theirs

# The mirror of Debian that this machine uses itself.
mirror=${CELDA_VM_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$' || true)}
mirror=${mirror%/}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# private_apt SUITE ARCH apt-get|apt-cache ARGS...
private_apt() {
    local suite=$1 arch=$2 state=$cache/apt/$1-$2
    [ -n "$mirror" ] || die "this machine's apt knows no mirror of Debian: apt-get update, or set CELDA_VM_MIRROR to one, up to its /debian"
    [ -f "$keyring" ] || die "missing here: $keyring: apt-get install debian-archive-keyring"
    if [ ! -f "$state/status" ]; then
        mkdir -p "$state"/lists/partial "$state"/{archives,empty}/partial "$state"/sources
        apt_source "$mirror" "$suite" >"$state/sources/debian.sources"
        [ "$suite" = sid ] || apt_source "$mirror-security" "$suite-security" >>"$state/sources/debian.sources"
        : >"$state/status"
    fi
    # apt's answer must be in the language of this script: it is read.
    LC_ALL=C "$3" -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Install-Recommends=false \
        -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$state/sources" -o Dir::State::lists="$state/lists" \
        -o Dir::State::status="$state/status" -o Dir::State::extended_states="$state/extended" -o Dir::Cache="$state" \
        -o Dir::Cache::archives="$state/archives" -o APT::Sandbox::User=root -o Debug::NoLocking=true \
        -o Acquire::Languages=none -o Acquire::Retries=3 -qq "${@:4}"
}

apt_source() {
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' "$1" "$2" "$keyring"
}

# The package lists of a suite, not older than what its mirror still has.
lists() {
    local fresh=$cache/apt/$1-$2/fresh
    [ -z "$(find "$fresh" -mmin -60 2>/dev/null)" ] || return 0
    private_apt "$1" "$2" apt-get update >&2 || die "no package lists of $1 from $mirror (CELDA_VM_MIRROR names another)"
    touch "$fresh"
}

fetch() {
    local suite=$1 arch=$2 extent=$3 state=$cache/apt/$1-$2 files
    shift 3
    lists "$suite" "$arch"
    # apt names no file that is there already; in an empty folder none is.
    local get=(private_apt "$suite" "$arch" apt-get) anew=(-o "Dir::Cache::archives=$state/empty")
    if [ "$extent" = alone ]; then
        files=$(cd "$state/empty" && "${get[@]}" download --print-uris "$@") || die "$suite has not all of: $*"
        (cd "$state/archives" && "${get[@]}" download "$@" >&2) || die "download from $suite: $*"
    else
        files=$("${get[@]}" install -y --print-uris "${anew[@]}" "$@") || die "$suite has not all of: $*"
        "${get[@]}" install -y --download-only "$@" >&2 || die "download from $suite: $*"
    fi
    awk -v folder="$state/archives" "/^'/"' { print folder "/" $2 }' <<<"$files"
}

unpack() {
    local into=$1 file
    # Everything is below usr in Debian's packages since the merge; older ones get there by these links.
    mkdir -p "$into"/usr/{bin,sbin,lib}
    for name in bin sbin lib; do [ -e "$into/$name" ] || ln -s "usr/$name" "$into/$name"; done
    while read -r file; do
        dpkg-deb --fsys-tarfile "$file" | tar -x --keep-directory-symlink -C "$into" || die "unpack $file"
    done
}
