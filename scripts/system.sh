#!/usr/bin/env bash
# Checks the tools that a target needs. Without an argument these are those of the whole build. An argument names another target:
#
#   native       the build without LibTorch
#   wheel        the Python package
#   image        the image
#   sbom         the list of the binary's parts
#   tests        the whole build and its tests
#   test-python  the tests of the Python package
#   dashboards   the whole build and a Prometheus
#
# What is missing is installed where this is root on Debian or Ubuntu, and named elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1-}
missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need_pip() { python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip); }

[[ $target == image || $target == sbom ]] || need c++ g++
[[ $target == native ]] || need python3 python3
case $target in
    native | image | sbom) ;;
    # Python fetches LibTorch, but a LibTorch of the user's own needs no download.
    '') [[ -n ${LIBTORCH+set} || -n ${LIBTORCH_USE_PYTORCH+set} ]] || need_pip ;;
    *) need_pip ;;
esac
case $target in
    tests)
        need promtool prometheus
        need chromium chromium
        need curl curl
        need nginx nginx
        ;;
    # Spark runs on Java.
    test-python) need java default-jre-headless ;;
    dashboards) need prometheus prometheus ;;
esac

if ((${#missing[@]})); then
    if ((EUID == 0)) && command -v apt-get >/dev/null; then
        echo "installing ${missing[*]}" >&2
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
    else
        echo "missing: ${missing[*]} (these are Debian's names of the packages): install them and run this again" >&2
        exit 1
    fi
fi

# Only Python 3.11 reads TOML, and only pip 22.3 installs into another environment.
case $target in
    wheel | image | sbom | tests | test-python)
        if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "python3 is $(python3 --version): install Python 3.11 or later, and put it first in PATH as python3" >&2
            exit 1
        fi
        ;;
esac
case $target in
    wheel | tests | test-python | dashboards)
        pip=$(python3 -m pip --version)
        if ! [[ $pip =~ ^pip\ ([0-9]+)\.([0-9]+) ]] || ((BASH_REMATCH[1] * 100 + BASH_REMATCH[2] < 2203)); then
            echo "python3 has $pip: install pip 22.3 or later (python3 -m pip install --upgrade pip)" >&2
            exit 1
        fi
        ;;
esac

# Docker compiles with its own.
if [[ $target != image ]] && ! command -v cargo >/dev/null; then
    echo "missing: cargo, with Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or later: see https://rustup.rs" >&2
    exit 1
fi
