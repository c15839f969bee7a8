#!/usr/bin/env python3
"""Collects a release in a directory and prints its path.

    dist.py [--out dist/canet-0.1.0] [--without-image | --without-registry]

`make dist` builds the binary and the wheel first. --without-registry is explained in scripts/image.py. The directory holds:

    canet-0.1.0-linux-x86_64    the server for CPUs, without debug information
    canet-0.1.0-*.whl           the Python package
    canet-0.1.0-image.oci.tar   the image for CPUs, which was started and asked
    canet-0.1.0.tgz             the Helm chart
    canet-0.1.0.cdx.json        what the binary is made of (CycloneDX)
    LICENSE-*                   the licences of canet, and of what is compiled into the binary and the Python module
    SHA256SUMS                  checksums, for `sha256sum --check`
"""

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path

import helm
import sbom
from common import REPOSITORY, SetupError, call, output, run, sha256_of, version
from licences import SHIPPED, write_licences

TARGET = REPOSITORY / "target"
CHART = REPOSITORY / "deploy" / "helm" / "canet"


def main():
    own = version()
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=REPOSITORY / "dist" / f"canet-{own}")
    options.add_argument("--canet", type=Path, default=TARGET / "native" / "release" / "canet")
    options.add_argument("--wheel", type=Path, help="by default that of target/wheel")
    kind = options.add_mutually_exclusive_group()
    kind.add_argument("--without-image", action="store_true")
    kind.add_argument("--without-registry", action="store_true", help="make the image of Debian's packages and --canet")
    options = options.parse_args()
    wheel = options.wheel or newest_wheel()
    agree(own, options.canet, wheel)

    # Renamed when complete.
    aside = options.out.with_name(f".{options.out.name}.{os.getpid()}")
    aside.mkdir(parents=True)
    try:
        name = f"canet-{own}"
        call(["strip", "-o", aside / f"{name}-linux-x86_64", options.canet])
        shutil.copy(wheel, aside)
        chart(aside)
        (aside / f"{name}.cdx.json").write_text(json.dumps(sbom.describe(native=True), indent=1) + "\n")
        for licence in REPOSITORY.glob("LICENSE-*"):
            shutil.copy(licence, aside)
        write_licences(aside, *SHIPPED)
        if not options.without_image:
            flags = ["--without-registry", "--canet", options.canet] if options.without_registry else []
            archive = aside / f"{name}-image.oci.tar"
            call([sys.executable, "-B", REPOSITORY / "scripts" / "image.py", "--archive", archive, *flags])
        files = sorted(file for file in aside.iterdir())
        (aside / "SHA256SUMS").write_text("".join(f"{sha256_of(file)}  {file.name}\n" for file in files))
        if options.out.exists():
            shutil.rmtree(options.out)
        aside.rename(options.out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(options.out)


def newest_wheel():
    wheels = list((TARGET / "wheel").glob("canet-*.whl"))
    if len(wheels) != 1:
        raise SetupError(f"{TARGET / 'wheel'} holds {len(wheels)} wheels of canet instead of one: run `make wheel`")
    return wheels[0]


def agree(own, canet, wheel):
    """Checks that all parts are of one version."""
    if not canet.exists():
        raise SetupError(f"{canet} does not exist: build it by `make build-native`")
    chart = dict(re.findall(r'^(version|appVersion): "?([^"\n]+)"?$', (CHART / "Chart.yaml").read_text(), re.MULTILINE))
    printed = output([canet, "--version"]).split()
    found = {
        str(canet): printed[1] if len(printed) > 1 else "",
        str(wheel): wheel.name.split("-")[1],
        "version in Chart.yaml": chart.get("version"),
        "appVersion in Chart.yaml": chart.get("appVersion"),
    }
    for name, other in found.items():
        if other != own:
            raise SetupError(f"{name} is {other}, but Cargo.toml says {own}: change or rebuild it")


def chart(directory):
    """Packages the Helm chart."""
    call([helm.path(), "package", CHART, "--destination", directory])


if __name__ == "__main__":
    run(main)
