"""What a result says of where it comes from, and the cores that measured programs run on."""

import os
import platform
import re
import shlex
import sys
from contextlib import contextmanager
from datetime import date
from pathlib import Path


def described():
    """The machine, the day and the command that measured."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "machine": f"{os.cpu_count()} cores of {cpu[1] if cpu else platform.machine()}",
        "date": str(date.today()),
        "command": shlex.join(["python", *sys.argv]),
    }


@contextmanager
def pinned(cores):
    """Programs that are started in this block run on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def split(server_cores):
    """The cores of a server and those of what loads it; both sides share the cores of a machine that has no more."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= server_cores:
        return set(cores), set(cores)
    return set(cores[:server_cores]), set(cores[server_cores:])
