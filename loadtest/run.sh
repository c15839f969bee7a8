#!/usr/bin/env bash
# Runs the load test that SCENARIO names against the server at URL; loadtest/README.md lists what else can be set.
# Nothing is started but k6, which is fetched the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

export SCENARIO="${SCENARIO:-smoke}" OUT="${OUT:-target/loadtest/${SCENARIO:-smoke}}"
mkdir -p "$(dirname "$OUT")"
python=$(python3 scripts/tools.py loadtest/requirements.txt)
# A progress bar is for a terminal alone.
quiet=(--quiet)
[[ -t 1 ]] && quiet=()
status=0
"$(dirname "$python")/k6" run "${quiet[@]}" --no-usage-report "$@" loadtest/canet.js || status=$?
# 99: an objective was broken, and the summary was written.
if ((status == 0 || status == 99)); then
    echo "summary: $OUT.html and $OUT.json"
fi
exit "$status"
