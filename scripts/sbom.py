#!/usr/bin/env python3
"""Writes what the binary is made of as a CycloneDX 1.6 document.

    sbom.py [--no-default-features] [--out dist/canet.cdx.json]

Crates come from `cargo tree` for this platform: those that the binary links, and those that only its build runs, which
have the scope `excluded`. Their licences come from `cargo metadata`, their checksums from Cargo.lock. LibTorch's wheel and
the scripts of the console and of /docs, which no lock file names, are added. Two runs over the same sources write the same
bytes.

Standard library only.
"""

import argparse
import hashlib
import json
import re
import tomllib
import uuid
from pathlib import Path

import libtorch
from common import REPOSITORY, run
from licences import API, PLATFORM, VENDORED, compiled_crates

LICENCES = {name: licence for name, (_, licence) in VENDORED.items()} | {"torch": "BSD-3-Clause"}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--no-default-features", action="store_true", help="of the build without LibTorch")
    options.add_argument("--out", type=Path, default=REPOSITORY / "dist" / "canet.cdx.json")
    options = options.parse_args()
    document = describe(options.no_default_features)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{options.out}: {len(document['components'])} components")


def describe(native):
    packages, nodes, tree = compiled_crates("--package=canet", *(["--no-default-features"] if native else []))
    linked, built = tree("normal"), tree("normal,build")
    binary = next(id for id, package in packages.items() if package["name"] == "canet")
    checksums = locked()
    components = [crate(packages[id], checksums, id in linked) for id in built if id != binary]
    dependencies = [
        {
            "ref": reference(packages[id]),
            "dependsOn": sorted({reference(packages[other]) for other in nodes[id]["dependencies"] if other in built}),
        }
        for id in built
    ]
    others = [vendored(name, path) for name, (path, _) in VENDORED.items()]
    if not native:
        others.append(wheel(libtorch.TORCH))
    root = next(dependency for dependency in dependencies if dependency["ref"] == reference(packages[binary]))
    root["dependsOn"] = sorted(root["dependsOn"] + [other["bom-ref"] for other in others])
    components = sorted(components + others, key=lambda component: component["bom-ref"])
    content = json.dumps(components).encode()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, hashlib.sha256(content).hexdigest())}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": reference(packages[binary]),
                "name": "canet",
                "version": packages[binary]["version"],
                "licenses": [{"expression": packages[binary]["license"]}],
            },
            "properties": [{"name": "canet:platform", "value": PLATFORM}],
        },
        "components": components,
        "dependencies": sorted(dependencies, key=lambda dependency: dependency["ref"])
        + [{"ref": other["bom-ref"]} for other in others],
    }


def locked():
    """The checksum of every crate of the registry."""
    packages = tomllib.loads((REPOSITORY / "Cargo.lock").read_text())["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in packages}


def reference(package):
    if package["source"] is None:
        return f"pkg:cargo/{package['name']}@{package['version']}?vcs_url=local"
    return f"pkg:cargo/{package['name']}@{package['version']}"


def crate(package, checksums, is_linked):
    component = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "scope": "required" if is_linked else "excluded",
        "purl": f"pkg:cargo/{package['name']}@{package['version']}",
    }
    if package["license"]:
        # The form with a slash is older than SPDX expressions.
        component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums[(package["name"], package["version"])]
    if checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return component


def vendored(name, path):
    source = (API / "pages.rs").read_text()
    version = re.search(rf"{name.replace('-', '[- ]')} (\d+\.\d+\.\d+)", source, re.IGNORECASE)[1]
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return other("npm", name, version, content)


def wheel(wheel):
    name, version = wheel.requirement.split("==")
    return other("pypi", name, version, wheel.sha256)


def other(kind, name, version, sha256):
    return {
        "type": "library",
        "bom-ref": f"pkg:{kind}/{name}@{version}",
        "name": name,
        "version": version,
        "scope": "required",
        "licenses": [{"expression": LICENCES[name]}],
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "purl": f"pkg:{kind}/{name}@{version}",
    }


if __name__ == "__main__":
    run(main)
