# Images of a Debian system: one bootstrap, and layers of what apt adds to it.

# What a package manager needs and a container does not; and what differs from one making to the next.
debian_trim() {
    rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/usr/share/{doc,man,locale,info}/* \
        "$1"/var/cache/ldconfig/aux-cache "$1"/etc/machine-id "$1"/dev/*
}

debian_base() {
    local root=$work/debian stack=$work/stack
    if [ "$arch" = "$native" ]; then
        debian_bootstrap "$root" --variant=minbase
    else
        debian_unpacked "$root"
    fi
    debian_trim "$root"
    tar_of "$root" "$work/layer.tar"
    rm -rf --one-file-system "$root"
    : >"$stack"
    add_layer "$stack" "$work/layer.tar" gzip
    name_descriptor "$(write_manifest "$stack" "$arch" '{"Cmd": ["/bin/bash"]}')" "$1"
}

# debian_bootstrap ROOT FLAGS...: by the machine's own suite and mirror, which it can surely reach.
debian_bootstrap() {
    mmdebstrap --quiet --components=main,universe --aptopt='APT::Sandbox::User "root"' "${@:2}" \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$1" "$(debian_mirror)" >&2
}

# debian_unpacked ROOT PACKAGES...: another processor's system, with nothing of it run; what its scripts would have made is
# missing but for the users and a shell.
debian_unpacked() {
    local root=$1 package
    shift
    debian_bootstrap "$root" --variant=extract --architectures="$arch" --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --include='?essential' --include=base-passwd $(for package; do echo "--include=$package"; done)
    cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
    cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
    [ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
}

# The first Debian or Ubuntu mirror among the machine's sources, in either notation.
debian_mirror() {
    { grep -hE '^URIs:' /etc/apt/sources.list.d/{debian,ubuntu}.sources 2>/dev/null | awk '{print $2}'
      grep -hE '^deb ' /etc/apt/sources.list 2>/dev/null | sed 's/\[[^]]*\] *//' | awk '{print $2}'; } | head -1
}

# debian_with TAG CONFIG PACKAGES...: debian:1 and one layer of what installing PACKAGES changed.
debian_with() {
    local tag=$1 config=$2 bundle=$work/bundle stack=$work/stack
    shift 2
    umoci unpack --image "$layout:debian:1" "$bundle" >&2
    (cd "$bundle/rootfs" && find . -xdev -printf '%P\t%y\t%s\t%T@\t%m\n' | sort) >"$work/before"
    if [ "$arch" = "$native" ]; then
        cp /etc/resolv.conf "$bundle/rootfs/etc/resolv.conf"
        debian_chroot "$bundle/rootfs" "$@" >"$out/apt.log" 2>&1 || { say "apt in the chroot failed:"; tail -20 "$out/apt.log" >&2; exit 1; }
        : >"$bundle/rootfs/etc/resolv.conf"
    else
        rm -rf --one-file-system "$bundle/rootfs"
        debian_unpacked "$bundle/rootfs" "$@"
    fi
    debian_trim "$bundle/rootfs"
    (cd "$bundle/rootfs" && find . -xdev -printf '%P\t%y\t%s\t%T@\t%m\n' | sort) >"$work/after"
    comm -13 "$work/before" "$work/after" | cut -f1 | sed '/^$/d' >"$work/names"
    tar --create --file "$work/layer.tar" --directory "$bundle/rootfs" --no-recursion --numeric-owner --format=pax \
        --xattrs --xattrs-include='*' --verbatim-files-from --files-from "$work/names"
    rm -rf --one-file-system "$bundle"
    base_stack debian:1 "$stack"
    add_layer "$stack" "$work/layer.tar" gzip
    name_descriptor "$(write_manifest "$stack" "$arch" "$config")" "$tag"
}

# Installs packages in a root, with /proc and /dev that exist only in a mount namespace of their own.
debian_chroot() {
    local root=$1
    shift
    unshare --mount --propagation private bash -euc '
        root=$1; shift
        mount -t proc proc "$root/proc"
        mount -t tmpfs tmpfs "$root/dev"
        for node in null zero random urandom tty; do touch "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
        printf "#!/bin/sh\nexit 101\n" >"$root/usr/sbin/policy-rc.d"; chmod +x "$root/usr/sbin/policy-rc.d"
        export DEBIAN_FRONTEND=noninteractive
        chroot "$root" apt-get -qq -o APT::Sandbox::User=root update
        chroot "$root" apt-get -qq -o APT::Sandbox::User=root install -y --no-install-recommends "$@"
        rm "$root/usr/sbin/policy-rc.d"' bash "$root" "$@"
}

debian_nginx() {
    debian_with "$1" '{"Cmd": ["nginx", "-g", "daemon off;"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}}}' nginx
}

debian_python() {
    debian_with "$1" '{"Cmd": ["python3"], "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
        "WorkingDir": "/srv"}' python3
}

# Forty layers: each adds a file, every third replaces an older one, every fifth removes one.
debian_forty() {
    local stack=$work/stack dir=$work/chain number
    base_stack debian:1 "$stack"
    for number in $(seq 2 40); do
        rm -rf "$dir"
        mkdir -p "$dir/srv/chain"
        echo "layer $number" >"$dir/srv/chain/$number"
        echo "$number" >"$dir/srv/last"
        [ $((number % 3)) != 0 ] || echo "replaced in $number" >"$dir/srv/chain/$((number - 1))"
        [ $((number % 5)) != 0 ] || : >"$dir/srv/chain/.wh.$((number - 3))"
        tar_of "$dir" "$work/layer.tar" --mtime=@1700000000 --owner=0 --group=0
        add_layer "$stack" "$work/layer.tar" gzip
    done
    name_descriptor "$(write_manifest "$stack" "$arch" '{"Cmd": ["cat", "/srv/last"]}')" "$1"
}

debian_docker_archive() { skopeo copy -q "oci:$layout:debian-nginx:1" "docker-archive:$1:celda-test/nginx:1"; }
