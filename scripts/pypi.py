"""Single wheels from PyPI, fetched with pip and pinned by their checksums. scripts/tools.py installs what requirements files name.

Standard library only: these scripts run before anything is installed.
"""

import subprocess
import sys
from dataclasses import dataclass

from common import SetupError, say, sha256_of


@dataclass(frozen=True)
class Wheel:
    """One file on PyPI. The file's name says which platform pip must ask for."""

    requirement: str
    file: str
    sha256: str

    @property
    def platforms(self):
        tags = self.file[: -len(".whl")].split("-")[-1].split(".")
        return [tag for tag in tags if tag != "any"]


def fetch(wheel, directory):
    """The wheel's path below `directory`, downloaded unless it lies there whole already."""
    path = directory / wheel.file
    if path.exists():
        if sha256_of(path) == wheel.sha256:
            return path
        # Left by a download that was killed while the file was moved into place.
        path.unlink()
    say(f"fetching {wheel.requirement}")
    download(wheel, directory)
    if not path.exists():
        raise SetupError(f"pip fetched {wheel.requirement}, but not as {wheel.file}: the package index has another build")
    found = sha256_of(path)
    if found != wheel.sha256:
        path.unlink()
        raise SetupError(
            f"{wheel.file} has the checksum {found} instead of {wheel.sha256}: it is not the file that was pinned. "
            "It was deleted; run this again, and if it stays so, look at which package index pip uses (pip config list)"
        )
    return path


def download(wheel, directory):
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        raise SetupError(
            f"{sys.executable} has no pip: install it (Debian and Ubuntu: apt-get install python3-pip; "
            "elsewhere: python3 -m ensurepip) and run this again"
        )
    # The same file on every machine, whatever Python runs this: the wheel is unpacked, never imported.
    target = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"]
    for platform in wheel.platforms:
        target += ["--platform", platform]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", *target, "--dest", str(directory), wheel.requirement]
    errors = []
    with subprocess.Popen(command, stdout=sys.stderr.fileno(), stderr=subprocess.PIPE, text=True) as pip:
        for line in pip.stderr:
            say(line.rstrip())
            errors.append(line)
    if pip.returncode != 0:
        raise SetupError(explain(wheel, "".join(errors)))


def explain(wheel, output):
    """pip's failure in our words."""
    if "No space left" in output:
        return f"the disk is full: {wheel.requirement} could not be stored; make room and run this again"
    # An index that does not answer looks to pip like one without a single version.
    unreachable = ["NewConnectionError", "ConnectionError", "ProxyError", "SSLError", "Timeout", "Connection broken",
                   "Connection reset", "(from versions: none)"]
    if any(sign in output for sign in unreachable):
        return (
            f"the package index cannot be reached for {wheel.requirement}: check the network and the proxy "
            "(HTTPS_PROXY; a mirror: PIP_INDEX_URL), then run this again: what is already there is kept"
        )
    if "from versions:" in output:
        return (
            f"the package index that pip uses does not have {wheel.file}: it may be an incomplete mirror (pip config list)"
        )
    return f"pip could not fetch {wheel.requirement}: its message stands above"
