#!/usr/bin/env python3
"""Builds the Python wheel into target/wheel and prints its path.

    wheel.py [--canet target/native/release/canet] [--profile release]

The wheel has the module of crates/python, the command `canet`, which is the binary that --canet names, and the licences of both and
of what is compiled into them. Its tag names the oldest C library with which both run. `make wheel` builds the binary first.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from common import REPOSITORY, SetupError, run
from licences import SHIPPED, write_licences

PACKAGE = REPOSITORY / "crates" / "python"
TARGET = REPOSITORY / "target" / "native"
OUT = REPOSITORY / "target" / "wheel"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--canet", type=Path, default=TARGET / "release" / "canet")
    options.add_argument("--profile", default="release")
    options = options.parse_args()
    if not options.canet.exists():
        raise SetupError(f"{options.canet} does not exist: build it by `make build-native`")
    shutil.rmtree(OUT, ignore_errors=True)
    scripts = PACKAGE / "wheel.data" / "scripts"
    shutil.rmtree(scripts, ignore_errors=True)
    scripts.mkdir(parents=True)
    # Without debug information, which makes it three times as large.
    command = ["strip", "-o", str(scripts / "canet"), str(options.canet)]
    if subprocess.run(command).returncode != 0:
        raise SetupError("strip failed: install binutils (Debian and Ubuntu: apt-get install binutils) and run this again")
    licences = []
    try:
        licences += [Path(shutil.copy(REPOSITORY / name, PACKAGE)) for name in ("LICENSE-APACHE", "LICENSE-MIT")]
        licences.append(write_licences(PACKAGE, *SHIPPED))
        build(options.profile, f"manylinux_2_{oldest_glibc(options.canet)}")
    finally:
        shutil.rmtree(scripts.parent)
        for licence in licences:
            licence.unlink()
    (wheel,) = OUT.glob("*.whl")
    print(wheel)


def oldest_glibc(binary):
    """The minor version of the oldest glibc 2 with which a binary runs."""
    return max(int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", binary.read_bytes()))


def build(profile, compatibility):
    tools = [sys.executable, str(REPOSITORY / "scripts" / "tools.py"), str(PACKAGE / "requirements.txt")]
    found = subprocess.run(tools, stdout=subprocess.PIPE, text=True)
    if found.returncode != 0:
        sys.exit(found.returncode)
    command = [str(Path(found.stdout.strip()).with_name("maturin")), "build", "--locked", "--profile", profile]
    command += ["--compatibility", compatibility, "--out", str(OUT), "--manifest-path", str(PACKAGE / "Cargo.toml")]
    # What the binary shares with the module is compiled once, as in `make build-native`.
    environment = {**os.environ, "CARGO_BUILD_BUILD_DIR": str(REPOSITORY / "target"), "CARGO_TARGET_DIR": str(TARGET)}
    if subprocess.run(command, stdout=sys.stderr.fileno(), env=environment).returncode != 0:
        raise SetupError("maturin could not build the wheel: its message stands above")


if __name__ == "__main__":
    run(main)
