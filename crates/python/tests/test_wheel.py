"""The wheel in an environment with nothing else."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from conftest import MODEL

PROGRAM = """
import canet
model = canet.Model({model!r})
print(model.recommend([["50", "181", "258"]], k=5).items[0, 0])
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The programs of an environment into which pip installed the wheel alone."""
    directory = tmp_path_factory.mktemp("empty")
    venv.create(directory, symlinks=True, with_pip=False)
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip"] if "PIP" not in os.environ else os.environ["PIP"].split()
    install = [*pip, "--python", python, "install", "--quiet", "--disable-pip-version-check", os.environ["CANET_WHEEL"]]
    subprocess.run(install, check=True)
    return python.parent


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_the_module_and_the_command_recommend(environment, tmp_path):
    ran = run(environment / "python", "-c", PROGRAM.format(model=str(MODEL)))
    assert (ran.stdout, ran.stderr) == ("1\n", "")
    data = tmp_path / "users.txt"
    data.write_text("ann 50 181 258\n")
    ran = run(environment / "canet", "rank", "--model", MODEL, "--data", data)
    assert ran.returncode == 0 and '{"user":"ann","items":[{"item":"1"' in ran.stdout, ran.stderr


def test_the_command_says_how_to_train(environment):
    ran = run(environment / "canet", "train", "--data", "users.csv", "--out", "models/mine")
    assert ran.returncode == 64 and "training needs LibTorch" in ran.stderr and "build" in ran.stderr


def test_what_is_missing_is_named_with_the_command_that_installs_it(environment):
    for name, extra in [("Client", "client"), ("to_torch", "torch")]:
        ran = run(environment / "python", "-c", f"import canet; canet.{name}")
        assert ran.returncode == 1 and f"pip install 'canet[{extra}]'" in ran.stderr, ran.stderr


def test_types_and_licences_are_in_it(environment):
    (package,) = environment.parent.glob("lib/python*/site-packages/canet")
    assert {"py.typed", "_native.pyi", "torch.py"} <= {file.name for file in package.iterdir()}
    names = {file.name for file in package.parent.glob("canet-*/**/*")}
    assert {"LICENSE-APACHE", "LICENSE-MIT", "LICENSE-THIRD-PARTY.txt"} <= names
    (texts,) = {file.read_text() for file in package.parent.glob("canet-*/**/LICENSE-THIRD-PARTY.txt")}
    # What the module links, and what the command does.
    assert all(f"\n{name} " in texts for name in ("arrow-array", "numpy", "pyo3", "tokio"))
    assert not list(Path(package).glob("**/tests"))
