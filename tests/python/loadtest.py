"""Runs loadtest/run.sh with the real k6 against servers that answer what no canet would.

    loadtest.py SCRATCH
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BROKEN, BAD_USAGE = 99, 64
ITEMS = [str(item) for item in range(1, 9)]
ANSWER = {"items": [{"item": "1", "score": 1.0}]}
# How fast answers are is not what is tested.
SETTINGS = {"RATE": "40", "DURATION": "1s", "SLO_P99_MS": "10000", "LATE_MS": "10000", "SCENARIO": "smoke"}


def main():
    scratch = Path(sys.argv[1])
    check_answers(scratch)
    check_silence(scratch)
    check_callers_files(scratch)
    check_spaces(scratch)
    print("ok")


def check_answers(scratch):
    """An answer counts if it has the items that it must have. Nothing that a server sends ends a source of requests."""
    whole = {"results": [ANSWER, ANSWER]}
    cases = [
        ("smoke", ANSWER, 1),
        ("smoke", {"items": []}, 0),
        ("smoke", {"items": {"1": 1}}, 0),
        ("smoke", {}, 0),
        ("smoke", "no JSON", 0),
        ("batch", whole, 1),
        ("batch", {"results": [ANSWER]}, 0.5),
        ("batch", {"results": [ANSWER, {"status": 429}]}, 0.5),
        ("batch", {"results": [ANSWER, {}]}, 0.5),
        ("batch", {"results": [None, "text"]}, 0),
        ("batch", {"results": 2}, 0),
        ("batch", {}, 0),
        ("batch", "no JSON", 0),
    ]

    def asked(number):
        scenario, answer, _ = cases[number]
        with server(answer) as fake:
            return run(fake, made(scratch / f"case {number}"), SCENARIO=scenario, BATCH="2")

    # k6 mostly waits.
    with ThreadPoolExecutor(4) as several:
        runs = list(several.map(asked, range(len(cases))))
    for (scenario, answer, share), (status, said, summary) in zip(cases, runs):
        # Of a Poisson process with the mean 40, whose standard deviation is 6, and two rows a call.
        least = 15 * (2 if scenario == "batch" else 1)
        assert summary["requests"] >= least, (scenario, answer, summary)
        assert summary["answered"] == share * summary["requests"], (scenario, answer, summary)
        assert status == (0 if share == 1 else BROKEN), (scenario, answer, said)
        assert ("broken: answered: count>0" in said) == (share == 0), said
        assert ("broken: failed: rate<=" in said) == (share < 1), said
    # A user who has seen all items gets none.
    everything = scratch / "everything.txt"
    everything.write_text(f"user {' '.join(ITEMS)}\n" * 2)
    with server({"items": []}, longest=3) as fake:
        short = run(fake, scratch, HISTORIES=str(everything))
    with server({"items": []}, longest=3, size=1) as fake:
        full = run(fake, scratch, HISTORIES=str(everything))
    assert (short[0], full[0]) == (BROKEN, 0), (short[1], full[1])


def check_silence(scratch):
    """A server that never answers fails the run, and k6 waits until the last call has given up."""
    with server(None) as fake:
        status, said, summary = run(fake, scratch, TIMEOUT_MS="100")
    assert status == BROKEN and "broken: answered: count>0" in said, said
    assert summary["requests"] == summary["failed"] >= 15, summary
    environment = [f"--env={name}={value}" for name, value in (SETTINGS | {"TIMEOUT_MS": "60000"}).items()]
    inspected = subprocess.run([k6(), "inspect", *environment, ROOT / "loadtest" / "canet.js"], stdout=subprocess.PIPE, check=True)
    # A call gives up 10 s after its deadline, and the last one leaves after 1 s.
    longest = json.loads(inspected.stdout)["scenarios"]["requests"]["maxDuration"]
    minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", longest).groups()
    assert int(minutes or 0) * 60 + int(seconds) > 1 + 60 + 10, longest


def check_callers_files(scratch):
    """HISTORIES and OUT are files of whoever calls, wherever that is."""
    away = made(scratch / "some where")
    (away / "my histories.txt").write_text("user 5 6\n")
    with server(ANSWER) as fake:
        status, said, summary = run(fake, away, HISTORIES="my histories.txt", cwd=away)
        assert status == 0 and summary["answered"] > 0, said
        assert {item for history in fake.histories for item in history} == {"5", "6"}
        status, said, _ = run(fake, away, HISTORIES="others.txt", cwd=away)
    assert status == BAD_USAGE and f"HISTORIES={away / 'others.txt'} cannot be read" in said, said


def check_spaces(scratch):
    """The checkout may lie below a directory with a space."""
    copy = scratch / "a checkout"
    for part in ("loadtest", "proto", "scripts"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("results", "__pycache__"))
    with server(ANSWER) as fake:
        # Without its protocol files k6 would not get as far as to call.
        status, said, summary = run(fake, scratch, SCENARIO="grpc", GRPC="127.0.0.1:9", checkout=copy)
        assert status == BROKEN and "broken: sent: count>0" in said and summary["requests"] == 0, said
    targets = [line for line in (ROOT / "Makefile").read_text().splitlines() if "$$(python3 scripts/tools.py" in line]
    assert len(targets) > 5 and all('"$$(python3 scripts/tools.py' in line for line in targets), targets


def run(fake, out, cwd=None, checkout=ROOT, **settings):
    """A scenario against a server: its exit code, what it said, and its summary, if it wrote one."""
    url = f"http://127.0.0.1:{fake.server_port}"
    named = "summary" if cwd else str(out / "summary")
    environment = os.environ | SETTINGS | {"URL": url, "OUT": named} | settings
    summary = out / "summary.json"
    summary.unlink(missing_ok=True)
    done = subprocess.run([checkout / "loadtest" / "run.sh"], env=environment, cwd=cwd, capture_output=True, text=True)
    written = json.loads(summary.read_text()) if summary.exists() else None
    return done.returncode, done.stdout + done.stderr, written


def made(directory):
    directory.mkdir()
    return directory


def k6():
    tools = ["python3", ROOT / "scripts" / "tools.py", ROOT / "loadtest" / "requirements.txt"]
    python = subprocess.run(tools, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return Path(python).parent / "k6"


@contextmanager
def server(answer, longest=50, size=100):
    """Answers every recommendation alike; with `None` never. Keeps the histories that it got."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            found = {"items": [{"item": item} for item in ITEMS]}
            model = {"name": "m", "version": 1, "config": {"max_len": longest, "items": size}}
            path = self.path.partition("?")[0]
            self.say({"/model": model, "/routes": {"routes": [{"name": "h8-l1-e8"}]}, "/items": found}[path])

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            fake.histories += [row["history"] for row in body.get("requests", [body])]
            if answer is None:
                ended.wait()
                self.close_connection = True
            else:
                self.say(answer)

        def say(self, document):
            text = (document if isinstance(document, str) else json.dumps(document)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    ended = threading.Event()
    fake = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.daemon_threads = True
    fake.histories = []
    threading.Thread(target=fake.serve_forever, daemon=True).start()
    try:
        yield fake
    finally:
        ended.set()
        fake.shutdown()
        fake.server_close()


if __name__ == "__main__":
    main()
