# What the formats allow and few images use, in four layers that act on each other.
#
#   1 gzip      the base: links, devices, ids, names, times, xattrs, and what later layers remove or replace
#   2 gzip      whiteouts, opaque directories, file <-> directory, a hard link into layer 1, a sparse file (pax 1.0)
#   3 plain     GNU format: long names, base-256 ids, old sparse map, the same name twice, no entry for a directory
#   4 members   gzip in two members, no end-of-archive blocks

torture_image() { wide_sparse="" wide_pax=""; torture_layers "$1" gzip gzip plain members; }
# The same trees with what umoci 0.4 cannot read: zstd, GNU tar's old sparse map, a global pax header.
torture_wide() { wide_sparse=--sparse wide_pax=--pax-option=comment=celda; torture_layers "$1" zstd zstd gzip zstd; }

# torture_layers TAG KIND...: the four layers, packed as told.
torture_layers() {
    local tag=$1 stack=$work/stack number part
    shift
    : >"$stack"
    number=0
    for part in base changes gnu tail; do
        number=$((number + 1))
        "torture_$part" "$work/t$number" "$work/t$number.tar"
        add_layer "$stack" "$work/t$number.tar" "$1"
        shift
    done
    rm -rf "$work"/t[1-4]
    name_descriptor "$(write_manifest "$stack" "$arch" \
        '{"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "User": "tester:testers", "WorkingDir": "/home/tester"}')" "$tag"
}

torture_base() {
    local dir=$1 tar=$2 deep part
    mkdir -p "$dir"/{bin,etc,tmp,home/tester,dev,links,ids,names,times,attrs,opaque/old,opaque-late,gone-dir/sub}
    cp "$(command -v busybox)" "$dir/bin/busybox"
    for applet in sh cat ls stat id true; do ln -s busybox "$dir/bin/$applet"; done
    printf 'root:x:0:0:root:/:/bin/sh\ntester:x:70001:70002::/home/tester:/bin/sh\n' >"$dir/etc/passwd"
    printf 'root:x:0:\ntesters:x:70002:\nextra:x:70003:tester\n' >"$dir/etc/group"
    chown 70001:70002 "$dir/home/tester"
    chmod 1777 "$dir/tmp"
    mknod -m 666 "$dir/dev/null-copy" c 1 3
    mknod -m 640 "$dir/dev/disk" b 259 70000
    mknod -m 600 "$dir/dev/zero-zero" c 0 0
    mkfifo -m 622 "$dir/dev/pipe"

    echo shared >"$dir/links/first"
    ln "$dir/links/first" "$dir/links/second"
    ln "$dir/links/first" "$dir/etc/third"
    echo survivor >"$dir/links/doomed"
    ln "$dir/links/doomed" "$dir/links/kept"
    ln -s /etc/passwd "$dir/links/absolute"
    ln -s ../../../../etc/passwd "$dir/links/above"
    ln -s nowhere "$dir/links/dangling"
    ln -s links "$dir/link-to-dir"

    echo big >"$dir/ids/big" && chown 4000000000:3000000000 "$dir/ids/big"
    echo mid >"$dir/ids/mid" && chown 65536:70000 "$dir/ids/mid"
    cp "$dir/bin/busybox" "$dir/bin/setuid" && chmod 6755 "$dir/bin/setuid"

    echo long >"$dir/names/$(printf 'n%.0s' {1..200})"
    echo odd >"$dir/names/$(printf 'tab\tnewline\nquote"back\\slash \303\251 \377')"
    deep=$dir/names
    for part in $(seq 1 12); do deep=$deep/$(printf 'directory-%02d-%s' "$part" "$(printf 'd%.0s' {1..30})"); done
    mkdir -p "$deep" && echo deep >"$deep/file"
    ln -s "$(printf 'target/%.0s' {1..40})end" "$dir/names/long-link"

    echo fine >"$dir/times/fine" && touch -d '2023-06-01 12:00:00.123456789' "$dir/times/fine"
    echo old >"$dir/times/before-epoch" && touch -d '1960-01-01 00:00:00.5' "$dir/times/before-epoch"
    echo far >"$dir/times/after-2038" && touch -d '2100-01-01' "$dir/times/after-2038"

    cp "$dir/bin/busybox" "$dir/attrs/ping" && setcap cap_net_raw+ep "$dir/attrs/ping"
    echo attrs >"$dir/attrs/many"
    for part in $(seq 1 20); do setfattr -n "user.attr-$part" -v "value $part" "$dir/attrs/many"; done
    setfattr -n user.binary -v 0x000102ff3d0a "$dir/attrs/many"
    setfattr -n user.empty "$dir/attrs/many"
    setfattr -n user.on-directory -v yes "$dir/attrs"

    echo 1 >"$dir/opaque/old/file"; echo 1 >"$dir/opaque/hidden"; echo 1 >"$dir/opaque-late/hidden"
    echo 1 >"$dir/gone"; echo 1 >"$dir/gone-dir/sub/file"
    echo 1 >"$dir/becomes-dir"; mkdir "$dir/becomes-file" && echo 1 >"$dir/becomes-file/child"
    mkdir "$dir/becomes-link" && echo 1 >"$dir/becomes-link/child"
    echo 1 >"$dir/replaced" && chmod 600 "$dir/replaced"
    mkdir -m 700 "$dir/meta-only" && echo stays >"$dir/meta-only/child"
    : >"$dir/empty"
    tar_of "$dir" "$tar"
}

torture_changes() {
    local dir=$1 tar=$2
    mkdir -p "$dir"/{opaque,opaque-late,becomes-dir,links,sparse,meta-only,gone-dir}
    : >"$dir/.wh.gone"
    echo new >"$dir/gone-dir/new"   # the directory is removed below and made again by this very layer
    : >"$dir/.wh.gone-dir"
    : >"$dir/opaque/.wh..wh..opq"; echo 2 >"$dir/opaque/new"
    : >"$dir/opaque-late/.wh..wh..opq"; echo 2 >"$dir/opaque-late/aaa"
    : >"$dir/links/.wh.doomed"
    echo 2 >"$dir/becomes-dir/child"; echo 2 >"$dir/becomes-file"; ln -s links "$dir/becomes-link"
    echo 2 >"$dir/replaced"
    chmod 755 "$dir/meta-only"
    truncate -s 20M "$dir/sparse/pax"
    printf head | dd of="$dir/sparse/pax" conv=notrunc status=none
    printf middle | dd of="$dir/sparse/pax" bs=1 seek=7000001 conv=notrunc status=none
    truncate -s 5M "$dir/sparse/only-hole"
    # Opaque markers come after what their directory gets from this layer: order must not matter.
    tar_of "$dir" "$tar" --sparse --exclude=./opaque-late/.wh..wh..opq
    (cd "$dir" && tar --append --file "$tar" --format=pax ./opaque-late/.wh..wh..opq)
    torture_link_below "$dir" "$tar"
}

# Appends a hard link whose target only the layer below has: both names are written, then the first one, a header and
# one block of content, is cut off.
torture_link_below() {
    local dir=$1 tar=$2
    echo shared >"$dir/links/first"
    ln "$dir/links/first" "$dir/links/across"
    tar --create --file "$tar.both" --directory "$dir" --format=ustar ./links/first ./links/across
    tail -c +1025 "$tar.both" >"$tar.link"
    tar --concatenate --file "$tar" "$tar.link"
    rm "$tar.both" "$tar.link"
}

torture_gnu() {
    local dir=$1 tar=$2
    mkdir -p "$dir"/gnu/implied/deep
    echo gnu >"$dir/gnu/$(printf 'g%.0s' {1..180})"
    ln -s "$(printf 'gnu-target/%.0s' {1..20})end" "$dir/gnu/long-link"
    echo ids >"$dir/gnu/base-256" && chown 3000000000:2999999999 "$dir/gnu/base-256"
    echo implied >"$dir/gnu/implied/deep/file"
    truncate -s 12M "$dir/gnu/sparse"
    for at in 0 1 2 3 4 5 6 7 8 9; do printf 'part %d' "$at" | dd of="$dir/gnu/sparse" bs=1M seek="$at" conv=notrunc status=none; done
    echo first >"$dir/gnu/twice"
    # No entry for gnu/implied and gnu/implied/deep.
    (cd "$dir" && tar --create --file "$tar" --format=gnu --numeric-owner $wide_sparse --no-recursion \
        ./gnu ./gnu/g* ./gnu/long-link ./gnu/base-256 ./gnu/implied/deep/file ./gnu/sparse ./gnu/twice)
    echo 'second, and longer' >"$dir/gnu/twice" && chmod 640 "$dir/gnu/twice"
    tar --append --file "$tar" --directory "$dir" --format=gnu --numeric-owner ./gnu/twice
}

torture_tail() {
    local dir=$1 tar=$2 size
    mkdir -p "$dir/tail"
    echo tail >"$dir/tail/file"
    head -c 1000000 /dev/zero | tr '\0' 'x' >"$dir/tail/unaligned-size"
    tar_of "$dir" "$tar" $wide_pax
    # Cut the zero blocks: content of `unaligned-size` is the last entry and ends at a block's end.
    size=$(grep -abo 'x*' "$tar" | tail -1 | awk -F: '{print $1 + length($2) - 1}')
    truncate -s $(((size / 512 + 1) * 512)) "$tar"
}
