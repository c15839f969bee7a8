#!/usr/bin/env python3
"""Fetches MovieLens-100K into data/ml-100k and gives the shipped checkpoints their titles.

The data set is inside the wheel of RecBole on PyPI. Its licence does not allow to pass it on, so neither it nor
the titles are committed.
"""

import hashlib
import re
import tempfile
import zipfile
from pathlib import Path

from wheels import REPOSITORY, SetupError, Wheel, fetch, run, say, sha256_of, write_whole

RECBOLE = Wheel(
    "recbole==1.2.1",
    "recbole-1.2.1-py3-none-any.whl",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)
FILES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}


def main():
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
