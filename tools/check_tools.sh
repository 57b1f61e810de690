#!/usr/bin/env bash
# Says in one line what must be installed before anything can be built, instead of failing half-way.
set -uo pipefail

# 1.MINOR as `rust-version` in Cargo.toml has it.
needed=$(sed -n 's/^rust-version = "1\.\([0-9]*\)".*/\1/p' "$(dirname "$0")/../Cargo.toml")
status=0

if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust (https://rustup.rs)." >&2
    status=1
else
    minor=$(cargo --version | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
    if [ "${minor:-0}" -lt "$needed" ]; then
        echo "Rust 1.$needed or newer is needed, this is $(cargo --version): run 'rustup update stable'." >&2
        status=1
    fi
fi
if ! command -v cc >/dev/null; then
    echo "A C linker is missing: install gcc (Debian: apt-get install gcc libc6-dev)." >&2
    status=1
fi
exit $status
