#!/usr/bin/env bash
# Installs cargo-deny from crates.io if it is missing.
set -euo pipefail

VERSION=0.20.2
if ! cargo deny --version >/dev/null 2>&1; then
    echo "installing cargo-deny $VERSION" >&2
    # It reads a few files: built without optimisation it is ready much sooner.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --quiet --locked "cargo-deny@$VERSION"
fi
