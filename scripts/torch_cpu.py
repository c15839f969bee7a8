"""PyTorch for CPUs from PyPI, without the 3 GB of CUDA packages and the compiler that its metadata asks for.

PyPI's torch is linked against CUDA's libraries, and Linux loads it only if it finds all of them. The small ones, which torch calls
even without a GPU, are the real ones. One library stands for the others: it has their names, and functions that end the process.
Torch calls such a function only for a tensor on a GPU.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path

from libtorch import CPU_LIBRARIES, CUDA_RUNTIME, CUPTI, TORCH
from common import SetupError
from pypi import fetch

# PyPI's wheels of this version for Linux on x86-64, for Python 3.10 to 3.14.
SHA256 = [
    "1b32ceda909818a03b112006709b02be1877240c31750a8d9c6b7bf5f2d8a6e5",
    TORCH.sha256,
    "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
    "cc89b9b173d9adfab59fd227f0ab5e5516d9a52b658ae41d64e59d2e55a418db",
    "4dc8b3809469b6c30b411bb8c4cad3828efd26236153d9beb6a3ec500f211a60",
]

# What `import torch` imports.
REQUIRED = ["filelock", "fsspec", "jinja2", "networkx", "sympy", "typing-extensions"]

# Prefixes of the functions of CUDA's other libraries.
FUNCTIONS = re.compile(r"(cublas|cudnn|cufft|cuFile|curand|cusolver|cusparse|nccl|nvshmem)\w+")
# A library that torch opens by itself, if there is a GPU.
UNUSED = "libcaffe2_nvrtc.so"


def install(environment, pip):
    """Adds PyTorch to a virtual environment. `pip` installs into it what a list of pip's arguments names."""
    pip(REQUIRED)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        print(TORCH.requirement, *(f"--hash=sha256:{digest}" for digest in SHA256), file=requirements, flush=True)
        pip(["--no-deps", "--require-hashes", "--requirement", requirements.name])
    paths = {"base": str(environment), "platbase": str(environment)}
    site = Path(sysconfig.get_path("platlib", "venv", paths))
    libraries = site / "nvidia" / "cu13" / "lib"
    libraries.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as directory:
        for wheel in (CUDA_RUNTIME, CUPTI):
            with zipfile.ZipFile(fetch(wheel, Path(directory))) as archive:
                for member in CPU_LIBRARIES[wheel]:
                    (site / member).write_bytes(archive.read(member))
    stand_in(site / "torch" / "lib", libraries)


def stand_in(torch, libraries):
    """Writes one library under the name of every CUDA library that torch is linked against and that is missing."""
    needed, functions = set(), defaultdict(set)
    for library in torch.glob("*.so"):
        if library.name == UNUSED:
            continue
        needed |= set(re.findall(r"\(NEEDED\).*\[(.+)\]", read(["readelf", "-dW", library])))
        for line in read(["nm", "-D", "--undefined-only", library]).splitlines():
            # As in `U cublasSgemm@libcublas.so.13`.
            name, _, version = line.split()[-1].partition("@")
            if FUNCTIONS.fullmatch(name):
                functions[version].add(name)
    present = {file.name for directory in (torch, libraries) for file in directory.iterdir()}
    missing = sorted(name for name in needed - present if re.match(r"lib(cu|nccl|nvshmem)", name))
    with tempfile.TemporaryDirectory() as directory:
        source, versions = Path(directory, "stand_in.c"), Path(directory, "versions")
        names = sorted({name for group in functions.values() for name in group})
        source.write_text("void abort(void);\n" + "".join(f"void {name}(void) {{ abort(); }}\n" for name in names))
        # Functions without a version need no line.
        lines = [f"{version} {{ {'; '.join(sorted(group))}; }};\n" for version, group in sorted(functions.items()) if version]
        versions.write_text("".join(lines))
        first = libraries / missing[0]
        read(["cc", "-w", "-shared", "-o", first, source, f"-Wl,--version-script={versions}", f"-Wl,-soname,{first.name}"])
    for name in missing[1:]:
        (libraries / name).symlink_to(first.name)


def read(command):
    """What a program of the C compiler's package prints."""
    try:
        ran = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=sys.stderr.fileno(), text=True)
    except FileNotFoundError:
        raise SetupError(f"{command[0]} is missing: install a C compiler (Debian and Ubuntu: apt-get install g++)") from None
    if ran.returncode != 0:
        raise SetupError(f"{command[0]} failed: its message stands above")
    return ran.stdout
