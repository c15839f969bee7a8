"""Servers for measurements."""

import re
import subprocess
import sys
import threading
from contextlib import contextmanager

ADDRESSES = {"http": r"listening on http://([\d.:]+)", "grpc": r"listening on grpc://([\d.:]+)"}


@contextmanager
def serving(canet, model, flags):
    """`canet serve` of a model on free ports, stopped at the end: its `http` and its `grpc` address, and its `pid`."""
    command = [canet, "serve", "--model", model, "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *flags]
    server = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    try:
        addresses = {"pid": server.pid}
        for line in server.stderr:
            found = {name: re.search(pattern, line) for name, pattern in ADDRESSES.items()}
            addresses.update({name: match[1] for name, match in found.items() if match})
            if re.search(r"\bready\b", line):
                break
        else:
            sys.exit(f"the server for {model} ended before it was ready")
        # A full pipe must not stop it.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield addresses
    finally:
        server.terminate()
        server.wait()
