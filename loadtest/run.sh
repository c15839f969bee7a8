#!/usr/bin/env bash
# Runs the load test that SCENARIO names against the server at URL; loadtest/README.md lists what else can be set.
# Nothing is started but k6, which is fetched the first time.
set -euo pipefail
# The caller's files are named from where the caller is. k6 would look for them beside the script.
for name in HISTORIES OUT; do
    if [[ -n ${!name-} && ${!name} != /* ]]; then
        export "$name=$PWD/${!name}"
    fi
done
if [[ -n ${HISTORIES-} && ! -r $HISTORIES ]]; then
    echo "HISTORIES=$HISTORIES cannot be read" >&2
    exit 64
fi
cd "$(dirname "$0")/.."

# Names and descriptions of the scenarios, a line each.
scenarios() {
    awk '/^export const SCENARIOS/ { inside = 1 }
        inside && /^};/ { exit }
        inside && /^  [^ ]+: \{/ { name = $1; gsub(/[:\047]/, "", name) }
        inside && match($0, /about: \047[^\047]*\047/) { print name ": " substr($0, RSTART + 8, RLENGTH - 9) }' loadtest/lib/scenarios.js
}
if ! scenarios | grep -q "^${SCENARIO:-smoke}: "; then
    echo "SCENARIO=$SCENARIO is none of these scenarios:" >&2
    scenarios | sed 's/^/  /' >&2
    exit 64
fi

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
