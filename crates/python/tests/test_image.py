"""The Dockerfile and `scripts/image.py`, without an engine that builds images."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from conftest import REPOSITORY

# A Docker whose server ends at once.
DOCKER = """#!/bin/sh
echo "$@" >> {calls}
case $1 in
    create) echo c0ffee ;;
    port) echo 'No such container: c0ffee' >&2; exit 1 ;;
    logs) echo 'the model is damaged' >&2 ;;
esac
"""


def test_the_layer_of_the_dependencies_has_all_that_cargo_reads(tmp_path):
    lines = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    (kept,) = (line.removeprefix("RUN ") for line in lines if line.startswith("RUN find /crates "))
    first, last = lines.index("COPY Cargo.toml Cargo.lock build.rs ./"), lines.index("COPY --from=manifests /crates crates")
    for line in lines[first:last]:
        *sources, target = line.removeprefix("COPY ").split()
        for source in sources:
            copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copy
            copy(REPOSITORY / source, tmp_path / target)
    shutil.copytree(REPOSITORY / "crates", tmp_path / "crates", ignore=shutil.ignore_patterns("corpus", "__pycache__"))
    made, _, built = lines[last + 1].removeprefix("RUN ").partition("cargo build ")
    assert built, "the layer builds the dependencies"
    for command in (kept.replace("/crates", str(tmp_path / "crates"), 1), made):
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    command = ["cargo", "metadata", "--offline", "--no-deps", "--format-version", "1"]
    read = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    # `cargo build` refuses a manifest that names a target without a file. `cargo metadata` leaves that target out.
    for package in json.loads(read.stdout)["packages"]:
        manifest = tomllib.loads(Path(package["manifest_path"]).read_text())
        named = {(kind, target["name"]) for kind in ("bin", "test", "bench", "example") for target in manifest.get(kind, [])}
        found = {(kind, target["name"]) for target in package["targets"] for kind in target["kind"]}
        assert named <= found, package["name"]


def image(directory, docker, path):
    """Runs the script with a program in place of Docker."""
    program = directory / "docker"
    program.write_text(docker)
    program.chmod(0o755)
    script = [sys.executable, "-B", REPOSITORY / "scripts" / "image.py"]
    environment = {**os.environ, "PATH": path}
    return subprocess.run(list(map(str, script)), capture_output=True, text=True, env=environment, check=False)


def test_the_message_of_an_engine_that_does_not_answer_is_shown(tmp_path):
    ran = image(tmp_path, "#!/bin/sh\necho 'permission denied: docker.sock' >&2\nexit 1\n", str(tmp_path))
    assert ran.returncode == 1 and "its engine does not answer: permission denied: docker.sock" in ran.stderr


def test_the_log_of_a_server_that_ended_is_shown(tmp_path):
    calls = tmp_path / "calls"
    ran = image(tmp_path, DOCKER.format(calls=calls), f"{tmp_path}:{os.environ['PATH']}")
    assert ran.returncode == 1
    # The log, and the first error alone.
    assert re.search(r"the model is damaged\nimage.py: docker port failed", ran.stderr), ran.stderr
    assert [line.split()[0] for line in calls.read_text().splitlines()] == "info build create start port logs rm".split()
