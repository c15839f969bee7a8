#!/usr/bin/env python3
"""Installs what tests/requirements.txt names, once per user, and prints the Python interpreter that has it.

The packages live in a virtual environment of their own in ${CANET_CACHE:-${XDG_CACHE_HOME:-~/.cache}/canet}/tests,
one for each content of the file; those of other contents that no checkout has used for 30 days are removed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv

from wheels import REPOSITORY, SetupError, cache, locked, run, say

REQUIREMENTS = REPOSITORY / "tests" / "requirements.txt"
UNUSED_SECONDS = 30 * 24 * 3600


def main():
    root = cache() / "tests"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = root / f"{python}-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
    complete = environment / "complete"
    if not complete.exists():
        with locked(root / "lock"):
            if not complete.exists():
                remove_unused(root)
                install(environment)
                complete.touch()
    os.utime(complete)
    print(environment / "bin" / "python")


def install(environment):
    # What a killed run left.
    shutil.rmtree(environment, ignore_errors=True)
    # Debian has no pip to put into an environment without another package: the one that runs this serves it too.
    venv.create(environment, symlinks=True, with_pip=False)
    say("installing what the tests run")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--only-binary=:all:", "--requirement", str(REQUIREMENTS)]
    if subprocess.run(pip, stdout=sys.stderr.fileno()).returncode != 0:
        raise SetupError(
            f"pip could not install {REQUIREMENTS.name}: its message stands above; check the network and the package "
            "index (HTTPS_PROXY; a mirror: PIP_INDEX_URL), then run this again"
        )


def remove_unused(root):
    for complete in root.glob("*/complete"):
        if time.time() - complete.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(complete.parent, ignore_errors=True)


if __name__ == "__main__":
    run(main)
