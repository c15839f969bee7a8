#!/usr/bin/env python3
"""Fuzzes each target on its own and prints how much of the code behind it the inputs reached.

    fuzz_coverage.py [--seconds N] [NAME ...]

A region is a piece of code without a branch, as rustc's instrumentation counts it. Per target, the table has the regions
that ran in the project's own crates, and their share of all regions in the functions that were entered. Code that no
input entered at all is in no share.
"""

import argparse
import json
import os
import re
import subprocess
from pathlib import Path

from common import REPOSITORY, SetupError, run

BUILD = REPOSITORY / "target" / "coverage"

# The targets and what they need are no code under test.
TESTING = ("fuzz", "testing")

# The kind of a region that is code, in the export of llvm-cov.
CODE = 0


def tool(name):
    """The path of an LLVM tool that fits the compiler."""
    sysroot = subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip()
    found = list(Path(sysroot).glob(f"lib/rustlib/*/bin/{name}"))
    if not found:
        raise SetupError(f"{name} is missing: run `rustup component add llvm-tools`")
    return found[0]


def build():
    """Builds the targets with counters and returns the binary."""
    flags = f"{os.environ.get('RUSTFLAGS', '')} -C instrument-coverage".strip()
    env = {**os.environ, "RUSTFLAGS": flags}
    command = ["cargo", "test", "--release", "--locked", "-p", "canet-fuzz", "--test", "targets", "--no-run"]
    command += ["--target-dir", BUILD, "--message-format", "json"]
    lines = subprocess.run(command, env=env, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    built = [message.get("executable") for message in map(json.loads, lines)]
    return next(path for path in reversed(built) if path)


def regions(binary, profile):
    """The regions that ran, and all regions of the functions that were entered."""
    command = [tool("llvm-cov"), "export", binary, f"--instr-profile={profile}", "--skip-expansions"]
    exported = json.loads(subprocess.check_output(command))["data"][0]
    ran, entered = set(), set()
    for function in exported["functions"]:
        if not function["count"]:
            continue
        # A generic function has an entry for each of its types.
        for line, column, last_line, last_column, count, file, _, kind in function["regions"]:
            path = Path(function["filenames"][file])
            if kind != CODE or not path.is_relative_to(REPOSITORY / "crates"):
                continue
            if path.relative_to(REPOSITORY / "crates").parts[0] in TESTING:
                continue
            region = (path, line, column, last_line, last_column)
            entered.add(region)
            if count:
                ran.add(region)
    return ran, entered


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20, help="time for the mutants of each target")
    parser.add_argument("names", nargs="*", help="parts of the names of the tests to run; all by default")
    options = parser.parse_args()
    seconds = options.seconds
    # Build scripts and the list of tests are instrumented too and would write their profiles into the sources.
    os.environ["LLVM_PROFILE_FILE"] = str(BUILD / "other.profraw")
    tools = [tool("llvm-profdata"), tool("llvm-cov")]
    binary = build()
    listed = subprocess.check_output([binary, "--list", "--format", "terse"], text=True).splitlines()
    print("| target | executions | accepted | regions | of the entered functions |")
    print("|---|---|---|---|---|")
    tests = [line.removesuffix(": test") for line in listed]
    for test in [test for test in tests if not options.names or any(name in test for name in options.names)]:
        raw = BUILD / "fuzz.profraw"
        raw.unlink(missing_ok=True)
        env = {**os.environ, "CANET_FUZZ_SECONDS": str(seconds), "LLVM_PROFILE_FILE": str(raw)}
        command = [binary, "--exact", test, "--nocapture", "--test-threads", "1"]
        done = subprocess.run(command, env=env, cwd=REPOSITORY / "crates" / "fuzz", stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SetupError(f"{test} failed:\n{done.stdout}")
        # The line begins behind the name of the test.
        counted = re.findall(r"(?:^|\.\.\. )([^:\n]+): (\d+) executions, (\d+) accepted", done.stdout, re.MULTILINE)
        if not counted:
            continue
        profile = BUILD / "fuzz.profdata"
        subprocess.run([tools[0], "merge", "-sparse", raw, "-o", profile], check=True)
        ran, entered = regions(binary, profile)
        names = ", ".join(name for name, _, _ in counted)
        executions, accepted = (sum(int(row[place]) for row in counted) for place in (1, 2))
        share = 100 * len(ran) / max(len(entered), 1)
        print(f"| {names} | {executions:,} | {accepted:,} | {len(ran):,} | {share:.0f} % |", flush=True)


if __name__ == "__main__":
    run(main)
