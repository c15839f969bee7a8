#!/usr/bin/env bash
# Tests the Python package: installs the wheel of target/wheel beside the tests' packages and runs crates/python/tests. Arguments go to
# pytest. `make test-python` builds the wheel first.
set -euo pipefail
cd "$(dirname "$0")/.."

CANET_WHEEL=$(echo "$PWD"/target/wheel/canet-*.whl)
packages=$(python3 scripts/tools.py --cpu-torch crates/python/tests/requirements.txt)

# An environment that sees these packages, and that the wheel of this checkout alone is installed into.
environment=target/test-python
rm -rf "$environment"
python3 -c 'import sys, venv; venv.create(sys.argv[1], symlinks=True)' "$environment"
site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
site "$packages" > "$(site "$environment/bin/python")/packages.pth"
python3 -m pip --python "$environment/bin/python" install --quiet --disable-pip-version-check --no-deps "$CANET_WHEEL"

# The tests install the wheel into an empty environment too. Environments here have no pip of their own.
export CANET_WHEEL PIP="$(command -v python3) -m pip" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$environment/bin/python" -B -m pytest -p no:cacheprovider --quiet -rs crates/python/tests "$@"
