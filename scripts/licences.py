"""What a build is made of, and the licences of that. The Dockerfile calls this too.

Standard library only: these scripts run before anything is installed.
"""

import json
import re
import subprocess
from pathlib import Path

from common import REPOSITORY, SetupError, say, write_whole

PLATFORM = "x86_64-unknown-linux-gnu"
# The crates of the binary for CPUs and of the Python module, as flags of `compiled_crates`.
SHIPPED = ["--package=canet", "--package=canet-python", "--no-default-features", "--features=canet-python/module"]
API = REPOSITORY / "crates" / "api" / "src"
# Files of npm packages that are compiled in, unchanged, with their licences. `pages.rs` names their versions.
VENDORED = {
    "openapi-explorer": (API / "docs" / "openapi-explorer.min.js", "Apache-2.0"),
    "uplot": (API / "console" / "vendor" / "uplot" / "uPlot.iife.min.js", "MIT"),
}
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)


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
    Crates with the same text stand together."""
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
