"""The examples for Ray and Spark, run by the real engines, against `canet rank`."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile

import pyarrow
import pytest
from pyarrow import dataset, parquet

from conftest import MODEL, REPOSITORY

COLUMNS = ["user", "items", "scores", "route"]

# Ray gives up if a process of its own does not start in time. A busy machine needs longer than Ray's defaults.
PATIENT = {
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "900",
    "RAY_agent_register_timeout_ms": "900000",
    "RAY_gcs_rpc_server_connect_timeout_s": "900",
    "RAY_gcs_server_request_timeout_seconds": "900",
    "RAY_raylet_start_wait_time_s": "900",
    "RAY_worker_register_timeout_seconds": "900",
}


@pytest.fixture(scope="module")
def users(histories):
    """The items of each user. Numbers have another order as texts, and no user lacks a known item."""
    return {f"u{place}": items for place, items in enumerate(histories[:600])}


@pytest.fixture(scope="module")
def log(users, tmp_path_factory):
    """A directory with the interactions of all users, the newest first, in two files."""
    events = [(user, item, time) for user, items in users.items() for time, item in enumerate(items)]
    columns = list(zip(*sorted(events, key=lambda event: -event[2])))
    table = pyarrow.table(columns, ["user", "item", "timestamp"])
    directory = tmp_path_factory.mktemp("log")
    parquet.write_table(table.slice(0, 5000), directory / "1.parquet")
    parquet.write_table(table.slice(5000), directory / "2.parquet")
    return directory


@pytest.fixture(scope="module")
def expected(log, command, tmp_path_factory):
    """What `canet rank` writes, by user."""
    file = tmp_path_factory.mktemp("expected") / "rank.parquet"
    command("rank", "--model", MODEL, "--data", log, "--k", "5", "--out", file)
    return by_user(parquet.read_table(file))


@pytest.fixture
def scratch():
    """A directory with a short path, since Ray's sockets lie in it."""
    directory = tempfile.mkdtemp(dir="/tmp", prefix="e")
    yield directory
    shutil.rmtree(directory)


def by_user(table):
    assert table.column_names == COLUMNS
    rows = {user: rest for user, *rest in zip(*(table[name].to_pylist() for name in COLUMNS))}
    assert len(rows) == len(table)
    return rows


def run(example, data, out, variables):
    """The rows that an example writes, by user."""
    arguments = ["--model", MODEL, "--data", data, "--out", out, "--k", 5]
    program = [sys.executable, "-B", REPOSITORY / "examples" / example, *arguments]
    environment = {**os.environ, **variables}
    ran = subprocess.run(list(map(str, program)), env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return by_user(dataset.dataset(out, format="parquet").to_table())


def test_ray_recommends_what_canet_rank_recommends(users, expected, scratch, tmp_path):
    data = tmp_path / "histories"
    data.mkdir()
    table = pyarrow.table({"user": list(users), "history": list(users.values())})
    parquet.write_table(table.slice(0, 400), data / "1.parquet")
    parquet.write_table(table.slice(400), data / "2.parquet")
    # With a token of the test's own, Ray writes none into the home directory.
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    quiet = {"RAY_TMPDIR": scratch, "RAY_USAGE_STATS_ENABLED": "0"}
    assert run("ray_rank.py", data, tmp_path / "out", {**PATIENT, **access, **quiet}) == expected


def test_spark_recommends_what_canet_rank_recommends(log, expected, scratch, tmp_path):
    # Small, without a web page, and with its files in the scratch directory.
    settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2", "spark.local.dir": scratch}
    flags = " ".join(f"--conf {name}={value}" for name, value in settings.items())
    quiet = {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": f"--master local[2] --driver-memory 1g {flags} pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    assert run("spark_rank.py", log, tmp_path / "out", quiet) == expected
