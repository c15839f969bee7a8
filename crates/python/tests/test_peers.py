"""What canet is compared with (loadtest/peers): it ranks what canet ranks, and the comparisons run."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import CANET, MODEL, MODEL_VERSION, REPOSITORY

PEERS = REPOSITORY / "loadtest" / "peers"
sys.path.append(str(PEERS))

from checkpoint import Checkpoint  # noqa: E402
from network import padded  # noqa: E402
from runtimes import EXACT, ROUNDED  # noqa: E402
from served import python_server  # noqa: E402
from sessions import session_histories  # noqa: E402

# Scores closer than this may change places, because both sides round.
TIE = 1e-4


@pytest.fixture(scope="session")
def checkpoint():
    return Checkpoint.read(MODEL)


@pytest.fixture(scope="session")
def users(histories):
    """Histories of different lengths, so that most are padded. None is longer than what the model reads."""
    return [history[:50] for history in histories[:128]]


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    """Interactions, as lines `user item item ...`."""
    file = tmp_path_factory.mktemp("peers") / "users.txt"
    lines = (MODEL / str(MODEL_VERSION) / "items.tsv").read_text().splitlines()
    items = [line.split("\t")[0] for line in lines]
    file.write_text("".join(f"{user} {' '.join(items[user : user + 20 + user % 60])}\n" for user in range(200)))
    return file


def ranked(checkpoint, peer, histories):
    tokens = padded([checkpoint.read_part([checkpoint.items[item] for item in history]) for history in histories])
    names = list(checkpoint.items)
    return [[names[item - 1] for item in row] for row in peer(tokens).tolist()]


@pytest.mark.parametrize("name", EXACT)
def test_a_peer_ranks_what_canet_ranks(model, checkpoint, users, name):
    found = ranked(checkpoint, EXACT[name](checkpoint, "full", 1), users)
    expected = model.recommend(users, k=11, route="full")
    for row, best in enumerate(found):
        scores = dict(zip(expected.items[row], expected.scores[row]))
        for place, item in enumerate(best):
            assert abs(scores[item] - expected.scores[row, place]) < TIE, (row, place)


@pytest.mark.parametrize("name", ROUNDED)
def test_a_peer_that_rounds_more_finds_most_of_what_canet_ranks(model, checkpoint, users, name):
    if name == "openvino-bf16" and "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no instructions for bfloat16")
    found = ranked(checkpoint, ROUNDED[name](checkpoint, "full", 1), users)
    expected = model.recommend(users, k=10, route="full").items
    shared = sum(len({*a} & {*b}) for a, b in zip(found, expected)) / (10 * len(users))
    # It rounds, but computes the same model.
    assert 0.9 < shared < 1, shared


def test_each_worker_of_the_python_server_answers_what_canet_ranks(model, users):
    options = SimpleNamespace(model=MODEL, server_cores=2)
    with python_server(options, "onnxruntime") as url:
        for history in users[:20]:
            body = json.dumps({"history": history}).encode()
            call = urllib.request.Request(f"{url}/recommend", data=body, headers={"content-type": "application/json"})
            # A connection a call, so that both workers get some.
            with urllib.request.urlopen(call) as answer:
                assert json.load(answer)["items"] == list(model.recommend([history], k=10, route="full").items[0])


def test_users_of_sessions_return_as_often_as_told():
    # No two sequences have an item in common, and there are so many that hardly two users take the same one.
    sequences = [range(1000 * user, 1000 * (user + 1)) for user in range(100_000)]
    known, returned = {}, 0
    for history in session_histories(sequences, 4000, returning=0.8, seed=1):
        user, count = history[0] // 1000, len(history)
        assert history == sequences[user][:count]
        returned += user in known and 1 <= count - known[user] <= 3
        known[user] = count
    # The standard deviation is 25.
    assert 3100 < returned < 3300


def test_the_comparison_in_this_process_runs(log, tmp_path):
    document = compare(
        "compare.py", log, tmp_path, "--peers", "onnxruntime,openvino", "--batch", "1,32", "--seconds", "0.02",
        "--session-seconds", "0.2",
    )
    rows = {(row["what"], row.get("peer")): row for row in document["rows"]}
    like_for_like = rows["full route, 32 in flight", "ONNX Runtime, full"]
    assert like_for_like["median"] == pytest.approx(like_for_like["canet"] / like_for_like["theirs"], rel=1e-2)
    sessions = "sessions, the router's mix at a budget of 0.3,"
    assert 0 < rows[f"{sessions} requests that reuse a history", None]["median"] < 1
    assert rows[f"{sessions} with the cache", "OpenVINO, full"]["median"] > 0


def test_the_comparison_over_http_runs(log, tmp_path):
    document = compare("served.py", log, tmp_path, "--runtimes", "onnxruntime", "--users", "4", "--seconds", "1")
    rows = {row["what"]: row for row in document["rows"]}
    for what in ("full route", "uniform mix", "sessions, full route, with the cache"):
        row = rows[f"{what}, requests/s"]
        assert row["canet"] > 0 and row["theirs"] > 0 and row["peer"] == "FastAPI and ONNX Runtime, full route"
    assert rows["largest share refused in a run"]["median"] == 0


def compare(script, log, directory, *flags):
    """The document that a comparison of one round writes."""
    file = directory / "figures.json"
    command = [sys.executable, PEERS / script, "--model", MODEL, "--histories", log, "--canet", CANET, "--rounds", 1]
    ran = subprocess.run(
        list(map(str, [*command, "--json", file, *flags])), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    document = json.loads(file.read_text())
    assert re.match(r"\d+ cores of ", document["machine"]) and document["rounds"] == 1
    # Each figure has a line for people, too.
    assert all(row["what"] in ran.stdout for row in document["rows"])
    return document
