"""What the tests of the package share. `make test-python` runs them where the wheel is installed."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import canet

REPOSITORY = Path(__file__).resolve().parents[3]
MODEL = REPOSITORY / "models" / "ml-100k"
MODEL_VERSION = max(int(entry.name) for entry in MODEL.iterdir() if entry.name.isdigit())

# The command of the wheel, unless another one is named.
CANET = Path(os.environ.get("CANET") or Path(sys.executable).with_name("canet"))

sys.path.append(str(REPOSITORY / "loadtest"))


@pytest.fixture(scope="session")
def model():
    return canet.Model(MODEL)


@pytest.fixture(scope="session")
def histories(model):
    """1,000 histories of 1 to 80 known items; the model reads 50."""
    draw = random.Random(1)
    return [draw.choices(model.items, k=draw.randint(1, 80)) for _ in range(1000)]


@pytest.fixture(scope="session")
def command():
    """Runs `canet` and returns its standard output."""

    def run(*arguments):
        ran = subprocess.run([CANET, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run


@pytest.fixture(scope="session")
def rank(command, tmp_path_factory):
    """The lines of `canet rank` for histories."""

    def run(histories, *flags):
        data = tmp_path_factory.mktemp("rank") / "users.txt"
        data.write_text("".join(f"u{place} {' '.join(items)}\n" for place, items in enumerate(histories)))
        lines = command("rank", "--model", MODEL, "--data", data, "--device", "cpu", *flags)
        return [json.loads(line) for line in lines.splitlines()]

    return run


@pytest.fixture(scope="session")
def server():
    """The URL of a server of the model."""
    from serve import serving

    with serving(CANET, MODEL, ["--device", "cpu"]) as addresses:
        yield f"http://{addresses['http']}"
