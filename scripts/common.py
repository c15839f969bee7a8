"""What the scripts share.

Standard library only: these scripts run before anything is installed.
"""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class SetupError(Exception):
    """What is wrong and what to do about it, in one message."""


def say(message):
    """Progress goes to standard error: standard output is for the answer."""
    print(message, file=sys.stderr, flush=True)


def version():
    """The version of canet."""
    import tomllib

    return tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]


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


def call(command, **settings):
    """Runs a program, whose output goes to standard error."""
    if subprocess.run(list(map(str, command)), stdout=sys.stderr.fileno(), **settings).returncode != 0:
        raise SetupError(f"{command[0]} {command[1]} failed: its message stands above")


def output(command):
    ran = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    if ran.returncode != 0:
        raise SetupError(f"{command[0]} {command[1]} failed: its message stands above")
    return ran.stdout.strip()


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
