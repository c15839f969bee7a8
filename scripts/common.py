"""What the scripts share.

Standard library only: these scripts run before anything is installed.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

PLATFORM = "x86_64-unknown-linux-gnu"
# The crates of the binary for CPUs and of the Python module, for `write_licences`.
SHIPPED = ["--package=canet", "--package=canet-python", "--no-default-features", "--features=canet-python/module"]
API = REPOSITORY / "crates" / "api" / "src"
# Files of npm packages that are compiled in, unchanged, with their licences. `pages.rs` names their versions.
VENDORED = {
    "openapi-explorer": (API / "docs" / "openapi-explorer.min.js", "Apache-2.0"),
    "uplot": (API / "console" / "vendor" / "uplot" / "uPlot.iife.min.js", "MIT"),
}
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)


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


def cargo(*arguments):
    ran = subprocess.run(["cargo", *arguments, "--locked"], cwd=REPOSITORY, stdout=subprocess.PIPE, encoding="utf-8")
    if ran.returncode != 0:
        raise SetupError(f"cargo {arguments[0]} failed: its message stands above")
    return ran.stdout


def compiled_crates(*flags):
    """The metadata of cargo by the ids of packages, the graph of what they depend on, and a function from kinds of dependencies to
    the ids that cargo compiles. The flags name packages and features of this workspace."""
    features = [flag for flag in flags if not flag.startswith("--package=")]
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", PLATFORM, *features))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    by_version = {(package["name"], package["version"]): id for id, package in packages.items()}

    def tree(edges):
        """What cargo compiles. Its metadata names more: dependencies of features that only tests turn on."""
        lines = cargo("tree", "-e", edges, "--target", PLATFORM, "--prefix", "none", "--format", "{p}", *flags)
        found = (line.split()[:2] for line in lines.splitlines() if line)
        return {by_version[name, version.removeprefix("v")] for name, version in found}

    return packages, nodes, tree


def write_licences(directory, *flags):
    """Writes the licence texts of every crate that is linked, and of the scripts that are compiled in, and returns the file's path.
    Crates with the same text stand together. The Dockerfile calls this too."""
    packages, _, tree = compiled_crates(*flags)
    owners = {}
    for package in sorted((packages[id] for id in tree("normal")), key=lambda package: (package["name"], package["version"])):
        if package["source"] is None:
            continue
        name = f"{package['name']} {package['version']} ({package['license']})"
        present = Path(package["manifest_path"]).parent.iterdir()
        files = sorted(file for file in present if file.is_file() and LICENCE_FILE.match(file.name))
        if not files:
            say(f"{name} has no licence file: its licence is named without a text")
            owners.setdefault("The package has no licence file.", []).append(name)
        for file in files:
            owners.setdefault(file.read_text(encoding="utf-8", errors="replace").strip(), []).append(name)
    for name, (script, licence) in VENDORED.items():
        (file,) = [*script.parent.glob(f"{name}*LICENSE*"), *script.parent.glob("LICENSE*")]
        owners.setdefault(file.read_text(encoding="utf-8").strip(), []).append(f"{name} ({licence})")
    line = "=" * 80
    texts = [f"{line}\n{chr(10).join(dict.fromkeys(names))}\n{line}\n\n{text}\n\n" for text, names in owners.items()]
    path = Path(directory) / "LICENSE-THIRD-PARTY.txt"
    write_whole(path, "".join(texts).encode())
    return path


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
