#!/usr/bin/env python3
"""Installs what a requirements file names, once per user, and prints the Python interpreter that has it.

    tools.py tests/requirements.txt

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

from wheels import SetupError, cache, locked, run, say

UNUSED_SECONDS = 30 * 24 * 3600


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("requirements", type=Path)
    requirements = options.parse_args().requirements
    root = cache() / "tools"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = root / f"{python}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]}"
    complete = environment / "complete"
    if not complete.exists():
        with locked(root / "lock"):
            if not complete.exists():
                remove_unused(root)
                install(requirements, environment)
                complete.touch()
    os.utime(complete)
    print(environment / "bin" / "python")


def install(requirements, environment):
    # What a killed run left.
    shutil.rmtree(environment, ignore_errors=True)
    # Debian has no pip to put into an environment without another package: the one that runs this serves it too.
    venv.create(environment, symlinks=True, with_pip=False)
    say(f"installing what {requirements} names")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--only-binary=:all:", "--requirement", str(requirements)]
    if subprocess.run(pip, stdout=sys.stderr.fileno()).returncode != 0:
        raise SetupError(
            f"pip could not install {requirements}: its message stands above; check the network and the package "
            "index (HTTPS_PROXY; a mirror: PIP_INDEX_URL), then run this again"
        )


def remove_unused(root):
    for complete in root.glob("*/complete"):
        if time.time() - complete.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(complete.parent, ignore_errors=True)


if __name__ == "__main__":
    run(main)
