#!/usr/bin/env bash
# Runs every test and closes with one line that counts them over all test binaries.
set -euo pipefail
cd "$(dirname "$0")/.."

# Tests run side by side already; LibTorch's own threads on top would only wait for each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --release --locked --workspace --no-fail-fast "$@" | tee "$log" || status=$?
awk '
    /^test result:/ { passed += $4; failed += $6; skipped += $8 }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }
' "$log"
exit "$status"
