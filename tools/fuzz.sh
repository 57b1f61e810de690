#!/usr/bin/env bash
# Fuzzes each target of fuzz/ for so many seconds: tools/fuzz.sh 60. What a run has learnt stays in fuzz/corpus for the next;
# an input that fails is kept in fuzz/artifacts and becomes a test with a name.
set -euo pipefail

seconds=$1
cd "$(dirname "$0")/../fuzz"
for target in fuzz_targets/*.rs; do
    name=$(basename "$target" .rs)
    # Each protocol has a dictionary: the first word of a target's name.
    cargo +nightly fuzz run --fuzz-dir . "$name" -- -dict="${name%%_*}.dict" -max_len=1024 -max_total_time="$seconds" -verbosity=0 \
        -print_final_stats=1
done
