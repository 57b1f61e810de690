#!/usr/bin/env bash
# Installs the other event loops (and a faster network layer for them, and other Redis clients) that the benchmark compares with: PIP [REQUIREMENTS-FILE].
#
# Each by itself and binary only: one that has no wheel for this Python is left out, and the table says so.
set -uo pipefail

pip=$1
rivals=(uvloop rloop rsloop zuvloop aiofastnet coredis valkey-glide)
if [ -n "${2:-}" ]; then "$pip" install --quiet -r "$2" || exit 1; fi

for rival in "${rivals[@]}"; do
    "$pip" install --quiet --only-binary :all: "$rival" 2>/dev/null || echo "$rival has no wheel for this Python: left out"
done
exit 0
