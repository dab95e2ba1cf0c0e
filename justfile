# One command per habit. The plain cargo lines are what `just` runs: without it, type those.

# cargo fmt --check && cargo clippy --workspace --all-targets -- -D warnings
check:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings

# cargo fmt
fmt:
    cargo fmt

# cargo test --workspace
test *ARGS:
    cargo test --workspace {{ARGS}}

# sudo CELDA_REQUIRE_PRIVILEGED=1 cargo test --workspace
privileged *ARGS:
    sudo -E env "PATH=$PATH" CELDA_REQUIRE_PRIVILEGED=1 cargo test --workspace {{ARGS}}

# sudo tests/images/make.sh
images:
    sudo -E tests/images/make.sh

# cargo build --release && sudo target/release/benches start && sudo target/release/benches pull
bench *ARGS:
    cargo build --release
    sudo target/release/benches start {{ARGS}}
    sudo target/release/benches pull {{ARGS}}

# cargo bench -p benches
micro *ARGS:
    cargo bench -p benches {{ARGS}}

# cargo +nightly fuzz run TARGET -- -max_total_time=12    (for each target)
fuzz seconds="12":
    for target in $(cargo +nightly fuzz list); do cargo +nightly fuzz run "$target" -- -max_total_time={{seconds}} || exit 1; done

# RUSTFLAGS='--cfg loom' cargo test -p celda-auction --release --test loom --target-dir target/loom
loom:
    RUSTFLAGS='--cfg loom' cargo test -p celda-auction --release --test loom --target-dir target/loom

# RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace
docs:
    RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

# cargo deny check
deny:
    cargo deny check

# RUSTFLAGS='-Ctarget-feature=+crt-static -Crelocation-model=static' cargo build --release --target TRIPLE
release target="x86_64-unknown-linux-gnu":
    RUSTFLAGS='-Ctarget-feature=+crt-static -Crelocation-model=static' cargo build --release -p celda -p benches --target {{target}}
    cd target/{{target}}/release && sha256sum celda | tee celda.sha256

# vm/release [--cpu neoverse-n1]    (both processors, with checksums)
release-all *ARGS:
    vm/release {{ARGS}}

# vm/run ARCH [--kernel KERNEL] -- COMMAND      as: just vm aarch64 16k -- getconf PAGESIZE
[positional-arguments]
vm arch *ARGS:
    #!/bin/bash
    arch=$1
    shift
    [ "${1:---}" = -- ] || set -- --kernel "$@"
    exec vm/run "$arch" "$@"

# vm/test ARCH [--kernel KERNEL]
vm-test arch kernel="6.12" *ARGS:
    vm/test {{arch}} --kernel {{kernel}} {{ARGS}}
