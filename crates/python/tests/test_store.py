"""A model in a bucket. moto's server is the store, and the command of the wheel publishes."""

import os
import pickle
import subprocess
import urllib.request

import pytest

import canet
from conftest import MODEL, REPOSITORY

ADDRESS = "s3://models/films/ml-100k"


@pytest.fixture(scope="module")
def store():
    """The URL of a store with the bucket `models`."""
    # The interpreter that has pip.
    tools = [os.environ["PIP"].split()[0], "-B", REPOSITORY / "scripts" / "tools.py", REPOSITORY / "tests" / "requirements.txt"]
    python = subprocess.run(tools, capture_output=True, text=True, check=True).stdout.strip()
    server = [python, "-B", REPOSITORY / "tests" / "python" / "s3_server.py"]
    with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        urllib.request.urlopen(urllib.request.Request(f"{url}/models", method="PUT")).close()
        yield url
        process.stdin.close()


@pytest.fixture
def bucket(store, monkeypatch, tmp_path):
    """Sets the variables of a client, and returns the directory for copies."""
    for name in ("AWS_CA_BUNDLE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    client = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "never-shown", "AWS_REGION": "eu-west-1"}
    copies = tmp_path / "copies"
    variables = {**client, "AWS_ENDPOINT_URL": store, "AWS_ALLOW_HTTP": "true", "CANET_MODEL_CACHE": str(copies)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return copies


def test_a_published_model_is_copied_and_ranks(bucket, command, model, histories, tmp_path):
    command("publish", MODEL, ADDRESS)
    remote = canet.Model(ADDRESS)
    assert remote.info["version"] == model.info["version"]
    expected = model.recommend(histories)
    found = remote.recommend(histories)
    assert (found.items == expected.items).all() and (found.scores == expected.scores).all()
    assert list(bucket.rglob("weights.safetensors"))

    # Another process opens the model by its address, and into the same directory.
    named = canet.Model(ADDRESS, model_cache=tmp_path / "named")
    again = pickle.loads(pickle.dumps(named))
    assert again.info == named.info
    assert list((tmp_path / "named").rglob("weights.safetensors"))


def test_what_cannot_be_read_is_an_error(bucket, monkeypatch):
    with pytest.raises(canet.ModelError, match="s3://models/no-such-model"):
        canet.Model("s3://models/no-such-model")
    with pytest.raises(ValueError, match="s3://BUCKET/PREFIX"):
        canet.Model("s3://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(canet.ModelError, match="127.0.0.1:1"):
        canet.Model(ADDRESS)
    monkeypatch.delenv("CANET_MODEL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    with pytest.raises(ValueError, match="model_cache"):
        canet.Model(ADDRESS)
