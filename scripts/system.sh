#!/usr/bin/env bash
# Checks the tools that building needs: with the argument `native` those of the build without LibTorch alone, with
# `tests` also those that the tests run, with `test-python` those of the Python package and its tests. What is missing is installed
# where this is root on Debian or Ubuntu, and named elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need c++ g++
# Python fetches LibTorch.
if [[ ${1-} != native ]]; then
    need python3 python3
    # A LibTorch of the user's own needs no download.
    if [[ -z ${LIBTORCH+set} && -z ${LIBTORCH_USE_PYTORCH+set} || ${1-} == tests ]]; then
        python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
    fi
fi
if [[ ${1-} == tests ]]; then
    need promtool prometheus
    need chromium chromium
    need curl curl
    need nginx nginx
fi
if [[ ${1-} == test-python ]]; then
    # Spark runs on Java.
    need java default-jre-headless
fi

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

if ! command -v cargo >/dev/null; then
    echo "missing: cargo, with Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or later: see https://rustup.rs" >&2
    exit 1
fi
