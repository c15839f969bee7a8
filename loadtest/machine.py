"""What a result says of where it comes from."""

import os
import platform
import re
import shlex
import sys
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
