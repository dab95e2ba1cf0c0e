# Shared by the parts of make.sh: tags of one OCI layout, and layers put onto them byte for byte.
#
# Layers are appended as finished archives, so that what GNU tar was told to write is what a reader meets; umoci or
# buildah would write the archive anew and lose sparse maps, fifos' times and the order of entries.

say() { echo "images: $*" >&2; }

has_tag() { jq -e --arg tag "$1" \
    'any(.manifests[]?; .annotations["org.opencontainers.image.ref.name"] == $tag)' "$layout/index.json" >/dev/null; }

# make TAG FUNCTION: runs FUNCTION TAG in a subshell unless the layout has TAG.
make() {
    if has_tag "$1"; then say "$1 is there"; return; fi
    local began=$SECONDS
    "$2" "$1"
    has_tag "$1" || { say "$1 was not made"; exit 1; }
    say "$1 made in $((SECONDS - began)) s"
}

# make_file NAME FUNCTION: the same for a file beside the layout.
make_file() {
    if [ -s "$out/$1" ]; then say "$1 is there"; return; fi
    local began=$SECONDS
    "$2" "$work/$1"
    mv "$work/$1" "$out/$1"
    say "$1 made in $((SECONDS - began)) s"
}

# put_blob FILE: moves FILE into the layout, prints its sha-256.
put_blob() {
    local hex
    hex=$(sha256sum "$1" | cut -d' ' -f1)
    mkdir -p "$layout/blobs/sha256"
    mv "$1" "$layout/blobs/sha256/$hex"
    echo "$hex"
}

# tar_of DIR FILE [tar flags...]: one layer's archive, names in sorted order.
tar_of() {
    local dir=$1 file=$2
    shift 2
    tar --create --file "$file" --directory "$dir" --sort=name --numeric-owner --format=pax \
        --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include='*' "$@" .
}

# add_layer STACK TAR gzip|members|zstd|plain: packs TAR (consumed) and appends it to the layers of the image being stacked.
add_layer() {
    local stack=$1 tar=$2 kind=$3 diff_id hex media size
    diff_id=$(sha256sum "$tar" | cut -d' ' -f1)
    media=application/vnd.oci.image.layer.v1.tar
    case $kind in
        gzip) gzip -n -6 <"$tar" >"$tar.packed"; rm "$tar"; media+=+gzip ;;
        members) # one gzip stream in two members, cut in the middle of a header
            { head -c 700 "$tar" | gzip -n; tail -c +701 "$tar" | gzip -n; } >"$tar.packed"
            rm "$tar"
            media+=+gzip ;;
        zstd) zstd -q -3 --rm "$tar" -o "$tar.packed"; media+=+zstd ;;
        plain) mv "$tar" "$tar.packed" ;;
    esac
    size=$(stat -c %s "$tar.packed")
    hex=$(put_blob "$tar.packed")
    jq -nc --arg media "$media" --arg hex "$hex" --argjson size "$size" --arg diff "sha256:$diff_id" \
        '{layer: {mediaType: $media, digest: "sha256:\($hex)", size: $size}, diff: $diff}' >>"$stack"
}

# write_manifest STACK ARCH CONFIG_JSON: config and manifest blobs; prints the manifest's descriptor.
write_manifest() {
    local stack=$1 architecture=$2 config=$3 file=$work/json config_hex config_size hex size
    jq -sc --argjson config "$config" --arg arch "$architecture" '{created: "2024-01-01T00:00:00Z",
        architecture: $arch, os: "linux", config: $config, rootfs: {type: "layers", diff_ids: map(.diff)},
        history: map({created: "2024-01-01T00:00:00Z", created_by: "tests/images"})}' "$stack" >"$file"
    config_size=$(stat -c %s "$file")
    config_hex=$(put_blob "$file")
    jq -sc --arg hex "$config_hex" --argjson size "$config_size" '{schemaVersion: 2,
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: "sha256:\($hex)", size: $size},
        layers: map(.layer)}' "$stack" >"$file"
    size=$(stat -c %s "$file")
    hex=$(put_blob "$file")
    jq -nc --arg hex "$hex" --argjson size "$size" --arg arch "$architecture" '{
        mediaType: "application/vnd.oci.image.manifest.v1+json", digest: "sha256:\($hex)", size: $size,
        platform: {os: "linux", architecture: $arch}}'
}

# name_descriptor DESCRIPTOR TAG: enters it into the layout's index, by rename.
name_descriptor() {
    jq -c --argjson new "$1" --arg tag "$2" '.manifests += [$new + {annotations:
        {"org.opencontainers.image.ref.name": $tag}}]' "$layout/index.json" >"$work/index.json"
    mv "$work/index.json" "$layout/index.json"
}

# base_stack TAG STACK: starts STACK with the layers of TAG, whose blobs are shared.
base_stack() {
    local manifest config
    manifest=$(jq -r --arg tag "$1" '.manifests[]
        | select(.annotations["org.opencontainers.image.ref.name"] == $tag) | .digest[7:]' "$layout/index.json")
    config=$(jq -r '.config.digest[7:]' "$layout/blobs/sha256/$manifest")
    jq -c --slurpfile config "$layout/blobs/sha256/$config" '[.layers, $config[0].rootfs.diff_ids] | transpose[]
        | {layer: .[0], diff: .[1]}' "$layout/blobs/sha256/$manifest" >"$2"
}
