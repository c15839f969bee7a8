#!/usr/bin/env python3
"""Fetches MovieLens-100K into data/ml-100k and gives the shipped checkpoints their titles.

    data.py
    data.py --ml-1m ml-1m.txt

The data set is inside the wheel of RecBole on PyPI. Its licence does not allow to pass it on, so neither it nor
the titles are committed.

With --ml-1m nothing is fetched: MovieLens-1M as SASRec's repository publishes it (data/ml-1m.txt of
https://github.com/kang205/SASRec, `user item` lines in the order of time) is written to data/ml-1m-minus2.txt without each
user's last two interactions, which is what models/experiments and the benchmarks use.
"""

import argparse
import hashlib
import re
import tempfile
import zipfile
from pathlib import Path

from common import REPOSITORY, SetupError, run, say, sha256_of, write_whole
from pypi import Wheel, fetch

RECBOLE = Wheel(
    "recbole==1.2.1",
    "recbole-1.2.1-py3-none-any.whl",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)
FILES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}


# Of data/ml-1m-minus2.txt, as models/experiments/rows.py has it.
ML_1M_MINUS_2 = "4a799352710b680436818cf774e7b0dbde4db34de134af3deef23758da95f833"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ml-1m", type=Path, metavar="FILE", help="SASRec's ml-1m.txt, to make data/ml-1m-minus2.txt of")
    given = options.parse_args().ml_1m
    if given is not None:
        shorten(given, REPOSITORY / "data" / "ml-1m-minus2.txt")
        return
    data = REPOSITORY / "data" / "ml-100k"
    if not all((data / name).exists() and sha256_of(data / name) == sha256 for name, sha256 in FILES.items()):
        with tempfile.TemporaryDirectory() as directory:
            extract(fetch(RECBOLE, Path(directory)), data)
        say(f"MovieLens-100K is in {data}")
    write_titles(data / "ml-100k.item")


def extract(wheel, data):
    with zipfile.ZipFile(wheel) as archive:
        for name, sha256 in FILES.items():
            content = archive.read(f"recbole/dataset_example/ml-100k/{name}")
            if hashlib.sha256(content).hexdigest() != sha256:
                raise SetupError(f"{name} in {wheel.name} is not the file that was pinned")
            write_whole(data / name, content)


def shorten(given, target):
    """Writes the interactions of `given` without each user's last two."""
    users = {}
    for number, line in enumerate(given.read_text().splitlines(), 1):
        fields = line.split()
        if len(fields) != 2:
            raise SetupError(f"{given}:{number}: a user and an item were expected, found {line[:80]!r}")
        users.setdefault(fields[0], []).append(fields[1])
    text = "".join(f"{user} {item}\n" for user, items in users.items() for item in items[:-2]).encode()
    found = hashlib.sha256(text).hexdigest()
    if found != ML_1M_MINUS_2:
        raise SetupError(
            f"{given} without each user's last two interactions has the checksum {found} instead of {ML_1M_MINUS_2}: it is "
            "not the file that the experiments were made with, and nothing was written"
        )
    write_whole(target, text)
    say(f"MovieLens-1M less two interactions a user is in {target}")


def write_titles(items):
    """Writes titles.tsv (`id<TAB>title`) into every version of models/ml-100k that has none."""
    versions = [path.parent for path in REPOSITORY.glob("models/ml-100k/*/items.tsv")]
    versions = [version for version in versions if not (version / "titles.tsv").exists()]
    if not versions:
        return
    lines = []
    for line in items.read_text(encoding="utf-8").splitlines()[1:]:
        item, name, year, _ = line.split("\t")
        if re.fullmatch(r"\d{4}", year):
            lines.append(f"{item}\t{name} ({year})\n")
        # One film has its year in the name alone, another is unknown altogether and gets no title.
        elif re.search(r"\(\d{4}\)$", name):
            lines.append(f"{item}\t{name}\n")
    for version in versions:
        write_whole(version / "titles.tsv", "".join(lines).encode())
        say(f"titles are in {version / 'titles.tsv'}")


if __name__ == "__main__":
    run(main)
