"""`scripts/dist.py`, with the image that it builds, starts and asks if Buildah is at hand."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tomllib

import pytest

from conftest import REPOSITORY

VERSION = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]
BINARY = REPOSITORY / "target" / "native" / "release" / "canet"
# Buildah builds the image, on a Debian that mmdebstrap makes.
MAKES_IMAGES = bool(shutil.which("buildah") and shutil.which("mmdebstrap"))


def collect(out, *flags, **variables):
    """Runs the script with Python's own packages alone."""
    script = [os.environ["PIP"].split()[0], "-B", REPOSITORY / "scripts" / "dist.py", "--canet", BINARY, "--out", out, *flags]
    environment = {**os.environ, **variables}
    return subprocess.run(list(map(str, script)), capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    directory = tmp_path_factory.mktemp("release")
    flags, variables = ["--without-image"], {}
    if MAKES_IMAGES:
        # Images of the test lie in its own directory.
        storage = directory / "storage.conf"
        places = f'graphroot = "{directory}/images"\nrunroot = "{directory}/run"\n'
        storage.write_text(f'[storage]\ndriver = "vfs"\n{places}')
        # A Docker engine would keep the image.
        tools = directory / "docker"
        tools.write_text("#!/bin/sh\nexit 1\n")
        tools.chmod(0o755)
        flags = ["--without-registry"]
        variables = {"CONTAINERS_STORAGE_CONF": str(storage), "PATH": f"{directory}:{os.environ['PATH']}"}
    out = directory / "dist" / f"canet-{VERSION}"
    ran = collect(out, "--wheel", os.environ["CANET_WHEEL"], *flags, **variables)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == str(out)
    # Nothing half-made lies beside it.
    assert [file.name for file in out.parent.iterdir()] == [out.name]
    yield out, ran.stderr
    shutil.rmtree(directory)


def test_every_file_has_its_checksum_and_the_version(release):
    out, _ = release
    sums = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    files = {file.name for file in out.iterdir()} - {"SHA256SUMS"}
    assert set(sums) == files
    for name, expected in sums.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == expected
    assert all(name.startswith(f"canet-{VERSION}") for name in files if "LICENSE" not in name)
    assert {"LICENSE-APACHE", "LICENSE-MIT", f"canet-{VERSION}.cdx.json", f"canet-{VERSION}.tgz"} <= files
    assert os.path.basename(os.environ["CANET_WHEEL"]) in files


def test_the_binary_runs_and_is_smaller_than_the_one_with_debug_information(release):
    out, _ = release
    binary = out / f"canet-{VERSION}-linux-x86_64"
    assert subprocess.check_output([binary, "--version"], text=True).split()[1] == VERSION
    assert binary.stat().st_size < BINARY.stat().st_size / 2


def test_the_chart_and_the_licences_are_whole(release):
    out, _ = release
    with tarfile.open(out / f"canet-{VERSION}.tgz") as chart:
        names = chart.getnames()
        # A link to a file outside the chart is packed as that file.
        rules = chart.extractfile("canet/files/rules.yml").read()
    assert "canet/templates/deployment.yaml" in names
    assert rules == (REPOSITORY / "deploy" / "prometheus" / "rules.yml").read_bytes()
    texts = (out / "LICENSE-THIRD-PARTY.txt").read_text()
    components = json.loads((out / f"canet-{VERSION}.cdx.json").read_text())["components"]
    linked = [part for part in components if part["scope"] == "required" and "local" not in part["bom-ref"]]
    assert len(linked) > 100
    for part in linked:
        version = "" if part["purl"].startswith("pkg:npm") else f"{part['version']} "
        assert f"{part['name']} {version}(" in texts, part["name"]
    assert "Permission is hereby granted, free of charge" in texts
    # The SBOM is that of the binary. The module links these.
    assert all(f"\n{name} " in texts for name in ("arrow-array", "numpy", "pyo3"))


@pytest.mark.skipif(not MAKES_IMAGES, reason="Buildah and mmdebstrap are not installed")
def test_the_image_answers_and_is_an_oci_archive(release):
    out, said = release
    assert f"canet:{VERSION} recommends " in said
    with tarfile.open(out / f"canet-{VERSION}-image.oci.tar") as archive:

        def blob(described):
            return json.load(archive.extractfile("blobs/" + described["digest"].replace(":", "/")))

        (described,) = json.load(archive.extractfile("index.json"))["manifests"]
        manifest = blob(described)
        config = blob(manifest["config"])["config"]
        files = set()
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=archive.extractfile("blobs/" + layer["digest"].replace(":", "/"))) as packed:
                files.update(name.removeprefix("./") for name in packed.getnames())
    assert {f"usr/share/doc/canet/LICENSE-{name}" for name in ("APACHE", "MIT", "THIRD-PARTY.txt")} <= files
    assert config["User"] == "65532:65532" and config["Entrypoint"] == ["/usr/local/bin/canet"]
    assert config["Labels"]["org.opencontainers.image.version"] == VERSION


def test_parts_of_another_version_are_refused(tmp_path):
    wheel = tmp_path / "canet-0.0.9-cp310-abi3-linux_x86_64.whl"
    wheel.touch()
    ran = collect(tmp_path / "out", "--without-image", "--wheel", wheel)
    assert ran.returncode == 1 and f"is 0.0.9, but Cargo.toml says {VERSION}: change or rebuild it" in ran.stderr
    assert not (tmp_path / "out").exists()
