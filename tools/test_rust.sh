#!/usr/bin/env bash
# Runs the Rust tests: with nextest (a process and a time limit for each test) if installed, else with cargo.
#
# aioxide-python is left out: without an interpreter to link to it cannot be an executable. pytest tests it.
set -euo pipefail

selection=(--workspace --exclude aioxide-python --all-features)
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run "${selection[@]}"
    # nextest builds no examples and runs no documentation tests.
    cargo test --quiet --doc "${selection[@]}"
else
    cargo test "${selection[@]}"
fi
