#!/usr/bin/env python3
"""Installs what a requirements file names, once per user, and prints the Python interpreter that has it.

    tools.py tests/requirements.txt
    tools.py --cpu-torch crates/python/tests/requirements.txt

Where a line has `--hash`, pip checks the package. Programs of the packages lie beside the interpreter. Each content of such a file has a
virtual environment of its own in ${CANET_CACHE:-${XDG_CACHE_HOME:-~/.cache}/canet}/tools; those that no checkout has used for 30 days are
removed.
"""

import argparse
import hashlib
import os
import shutil
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import libtorch
import torch_cpu
from common import SetupError, cache, locked, run, say

UNUSED_SECONDS = 30 * 24 * 3600
# The first with `--python`.
OLDEST_PIP = (22, 3)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("requirements", type=Path)
    options.add_argument("--cpu-torch", action="store_true", help="add PyTorch without its CUDA packages")
    options = options.parse_args()
    requirements = options.requirements
    content = requirements.read_bytes()
    if options.cpu_torch:
        content += f"PyTorch {libtorch.VERSION} for CPUs".encode()
    root = cache() / "tools"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = root / f"{python}-{hashlib.sha256(content).hexdigest()[:16]}"
    complete = environment / "complete"
    if not complete.exists():
        with locked(root / "lock"):
            if not complete.exists():
                check_pip()
                remove_unused(root)
                create(environment)
                install_all(environment, requirements)
                if options.cpu_torch:
                    torch_cpu.install(environment, lambda packages: install(environment, packages, "PyTorch"))
                complete.touch()
    os.utime(complete)
    print(environment / "bin" / "python")


def create(environment):
    # What a killed run left.
    shutil.rmtree(environment, ignore_errors=True)
    # Debian has no pip to put into an environment without another package: the one that runs this serves it too.
    venv.create(environment, symlinks=True, with_pip=False)


def check_pip():
    """An environment here has no pip of its own, and only a recent one installs into another environment."""
    asked = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, text=True)
    if asked.returncode != 0:
        raise SetupError(
            f"{sys.executable} has no pip: install it (Debian and Ubuntu: apt-get install python3-pip; "
            "elsewhere: python3 -m ensurepip) and run this again"
        )
    found = re.match(r"pip (\d+)\.(\d+)", asked.stdout)
    if found is None or tuple(map(int, found.groups())) < OLDEST_PIP:
        oldest = ".".join(map(str, OLDEST_PIP))
        raise SetupError(f"this needs pip {oldest} or later, and {sys.executable} has {asked.stdout.strip()}")


def install_all(environment, requirements):
    """Installs what a requirements file names. pip checks the checksums of a whole file or of none, so packages with one are a file."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    for is_checked, flags in ((True, ["--require-hashes", "--no-deps"]), (False, [])):
        chosen = [line for line in lines if line.partition("#")[0].strip() and ("--hash=" in line) == is_checked]
        if chosen:
            with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
                print(*chosen, sep="\n", file=file, flush=True)
                install(environment, [*flags, "--requirement", file.name], f"what {requirements} names")


def install(environment, packages, name):
    """Runs pip with its arguments for packages, which a message calls by a name."""
    say(f"installing {name}")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--only-binary=:all:", *packages]
    if subprocess.run(pip, stdout=sys.stderr.fileno()).returncode != 0:
        raise SetupError(
            f"pip could not install {name}: its message stands above; check the network and the package "
            "index (HTTPS_PROXY; a mirror: PIP_INDEX_URL), then run this again"
        )


def remove_unused(root):
    for complete in root.glob("*/complete"):
        if time.time() - complete.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(complete.parent, ignore_errors=True)


if __name__ == "__main__":
    run(main)
