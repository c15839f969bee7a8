"""Wheels from PyPI, fetched with pip and pinned by their checksums.

Standard library only: these scripts run before anything is installed.
"""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class SetupError(Exception):
    """What is wrong and what to do about it, in one message."""


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


def say(message):
    """Progress goes to standard error: standard output is for the answer."""
    print(message, file=sys.stderr, flush=True)


def cache():
    """Where this user keeps what was fetched; every checkout shares it."""
    if os.environ.get("CANET_CACHE"):
        return Path(os.environ["CANET_CACHE"]).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "canet"


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


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


@contextmanager
def locked(path):
    """One run at a time; the system drops the lock when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another set-up is running (it holds {path}): waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_whole(path, data):
    """Writes aside and renames, so that no half-written file is ever seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    aside.replace(path)


def run(main):
    """Runs a script's `main` and turns what went wrong into one line and an exit code."""
    try:
        main()
    except SetupError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f"{Path(sys.argv[0]).name}: the disk is full: make room and run this again ({error})")
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{Path(sys.argv[0]).name}: interrupted; run this again to go on")
