#!/usr/bin/env python3
"""Installs what a requirements file names, once per user, and prints the Python interpreter that has it.

    tools.py tests/requirements.txt
    tools.py --cpu-torch crates/python/tests/requirements.txt

Programs of the packages lie beside the interpreter. Each content of such a file has a virtual environment of its own in
${CANET_CACHE:-${XDG_CACHE_HOME:-~/.cache}/canet}/tools; those that no checkout has used for 30 days are removed.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import libtorch
import torch_cpu
from common import SetupError, cache, locked, run, say

UNUSED_SECONDS = 30 * 24 * 3600


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
                remove_unused(root)
                create(environment)
                install(environment, ["--requirement", str(requirements)], f"what {requirements} names")
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
