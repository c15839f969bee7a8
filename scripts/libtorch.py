#!/usr/bin/env python3
"""Sets up LibTorch for this user, once, and prints its directory.

    libtorch.py [--cuda | --cpu]

The CPU part is what canet is built and linked against. With a GPU (or --cuda) the CUDA part is laid beside it,
and the same binary loads it at start. Both come out of PyPI's wheels, are checked against the checksums below
and live outside the repository, in ${CANET_CACHE:-${XDG_CACHE_HOME:-~/.cache}/canet}/libtorch. A run that was
killed is simply run again. LIBTORCH or LIBTORCH_USE_PYTORCH, where set, are checked and used instead.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

from common import REPOSITORY, SetupError, cache, locked, run, say, write_whole
from pypi import Wheel, fetch

VERSION = "2.11.0"

TORCH = Wheel(
    f"torch=={VERSION}",
    f"torch-{VERSION}-cp311-cp311-manylinux_2_28_x86_64.whl",
    "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
)
CUDA_RUNTIME = Wheel(
    "nvidia-cuda-runtime==13.0.96",
    "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
)
CUPTI = Wheel(
    "nvidia-cuda-cupti==13.0.85",
    "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
    "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
)
# What libtorch_cuda.so and libtorch_cuda_linalg.so load, in the versions that torch's metadata asks for.
CUDA = [
    CUDA_RUNTIME,
    Wheel(
        "nvidia-cublas==13.1.0.3",
        "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl",
        "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
    ),
    Wheel(
        "nvidia-cuda-nvrtc==13.0.88",
        "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    ),
    Wheel(
        "nvidia-cudnn-cu13==9.19.0.56",
        "nvidia_cudnn_cu13-9.19.0.56-py3-none-manylinux_2_27_x86_64.whl",
        "d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
    ),
    Wheel(
        "nvidia-cufft==12.0.0.61",
        "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
    ),
    Wheel(
        "nvidia-cufile==1.15.1.6",
        "nvidia_cufile-1.15.1.6-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
    ),
    Wheel(
        "nvidia-curand==10.4.0.35",
        "nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_x86_64.whl",
        "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
    ),
    Wheel(
        "nvidia-cusolver==12.0.4.66",
        "nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_x86_64.whl",
        "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
    ),
    Wheel(
        "nvidia-cusparse==12.6.3.3",
        "nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
    ),
    Wheel(
        "nvidia-cusparselt-cu13==0.8.0",
        "nvidia_cusparselt_cu13-0.8.0-py3-none-manylinux2014_x86_64.whl",
        "25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd",
    ),
    Wheel(
        "nvidia-nccl-cu13==2.28.9",
        "nvidia_nccl_cu13-2.28.9-py3-none-manylinux_2_18_x86_64.whl",
        "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
    ),
    Wheel(
        "nvidia-nvjitlink==13.0.88",
        "nvidia_nvjitlink-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
    ),
    Wheel(
        "nvidia-nvshmem-cu13==3.4.5",
        "nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
    ),
]

# Of the CPU directory. The binary is linked against libtorch_cpu alone, so that it also starts without CUDA.
CPU_LIBRARIES = {
    TORCH: ["torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1"],
    CUDA_RUNTIME: ["nvidia/cu13/lib/libcudart.so.13"],
    CUPTI: ["nvidia/cu13/lib/libcupti.so.13"],
}
# Of the CUDA directory; the rest of torch/lib is Python's or stands in the CPU directory.
CUDA_LIBRARIES = [f"torch/lib/lib{name}.so" for name in
                  ["torch_cuda", "torch_cuda_linalg", "torch_nvshmem", "c10_cuda", "caffe2_nvrtc"]]

# Room for the wheels and what is unpacked from them, together.
CPU_BYTES, CUDA_BYTES = 1_100_000_000, 6_500_000_000


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flavour = options.add_mutually_exclusive_group()
    flavour.add_argument("--cuda", action="store_true", help="add the CUDA part even where no GPU is seen")
    flavour.add_argument("--cpu", action="store_true", help="leave the CUDA part out even where there is a GPU")
    options = options.parse_args()

    own = users_own()
    if own is not None:
        print(own)
        return
    check_machine()
    root = cache() / "libtorch"
    # Renamed into place when whole: a directory of this name is finished.
    cpu, cuda = root / f"{VERSION}-cpu", root / f"{VERSION}-cuda"
    wants_cuda = options.cuda or (not options.cpu and has_gpu())
    if not cpu.is_dir() or (wants_cuda and not cuda.is_dir()):
        with locked(root / ".lock"):
            set_up(root, cpu, cuda if wants_cuda else None)
    check_version(cpu, f"the cached LibTorch in {cpu} (delete that directory to fetch it anew)")
    point_cargo_at(cpu)
    print(cpu)


def users_own():
    """The LibTorch that the environment names, checked; `None` where it names none."""
    if "LIBTORCH_USE_PYTORCH" in os.environ:
        # The interpreter that tch's build asks.
        python = "python" if "VIRTUAL_ENV" in os.environ else "python3"
        asked = subprocess.run([python, "-c", "import torch; print(torch.__path__[0])"], capture_output=True, text=True)
        if asked.returncode != 0:
            raise SetupError(
                f"LIBTORCH_USE_PYTORCH is set, but {python} cannot import torch: "
                f"pip install torch=={VERSION}, or unset the variable\n{asked.stderr.strip()}"
            )
        directory, name = Path(asked.stdout.strip()), "the PyTorch that LIBTORCH_USE_PYTORCH asks for"
    elif "LIBTORCH" in os.environ:
        directory, name = Path(os.environ["LIBTORCH"]), "the LibTorch that LIBTORCH names"
        if not (directory / "lib" / "libtorch_cpu.so").exists():
            raise SetupError(f"LIBTORCH is {directory}, which holds no lib/libtorch_cpu.so: correct or unset it")
    else:
        return None
    check_version(directory, name)
    say(f"using {name}: {directory}")
    return directory


def check_version(directory, name):
    headers = [directory / "include/torch/headeronly/version.h",
               directory / "include/torch/csrc/api/include/torch/version.h"]
    text = "".join(header.read_text() for header in headers if header.exists())
    parts = dict(re.findall(r"#define TORCH_VERSION_(MAJOR|MINOR|PATCH) (\d+)", text))
    found = ".".join(parts.get(part, "?") for part in ["MAJOR", "MINOR", "PATCH"])
    if found != VERSION and "LIBTORCH_BYPASS_VERSION_CHECK" not in os.environ:
        raise SetupError(
            f"{name} is of version {found}, canet needs {VERSION}: install that one, or unset the variable "
            "and let this script fetch it"
        )


def check_machine():
    machine = f"{platform.system()} on {platform.machine()}"
    advice = f"give a LibTorch {VERSION} of your own in the variable LIBTORCH, or a PyTorch by LIBTORCH_USE_PYTORCH=1"
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise SetupError(f"this is {machine}, the LibTorch that this script fetches is for Linux on x86-64: {advice}")
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 28):
        raise SetupError(f"the C library is {libc or 'not glibc'} {version}, glibc 2.28 or later is needed: {advice}")


def has_gpu():
    if Path("/dev/nvidia0").exists():
        return True
    smi = shutil.which("nvidia-smi")
    return smi is not None and subprocess.run([smi, "-L"], capture_output=True).returncode == 0


def set_up(root, cpu, cuda):
    """Fetches and unpacks what is missing. Runs under the lock."""
    wheels = root / "wheels"
    wheels.mkdir(exist_ok=True)
    if not cpu.is_dir():
        needs_room(root, CPU_BYTES)
        # tch links against `torch` too; the real libtorch.so would pull libtorch_cuda.so in.
        links = {"lib/libtorch.so": "libtorch_cpu.so"}
        unpack(cpu, {fetch(wheel, wheels): chosen_for_cpu(wheel) for wheel in CPU_LIBRARIES}, links)
    if cuda is not None and not cuda.is_dir():
        needs_room(root, CUDA_BYTES)
        chosen = {fetch(wheel, wheels): nvidia_library for wheel in CUDA}
        chosen[fetch(TORCH, wheels)] = lambda name: name if name in CUDA_LIBRARIES else None
        unpack(cuda, chosen, {})
    shutil.rmtree(wheels)


def needs_room(root, size):
    free = shutil.disk_usage(root).free
    if free < size:
        raise SetupError(
            f"{root} has {free / 1e9:.1f} GB free, {size / 1e9:.1f} GB are needed while this runs: make room, "
            "or name another place in the variable CANET_CACHE"
        )


def chosen_for_cpu(wheel):
    libraries = CPU_LIBRARIES[wheel]

    def place(name):
        if name in libraries:
            return f"lib/{Path(name).name}"
        if wheel is TORCH and name.startswith("torch/include/"):
            return name[len("torch/"):]
        return None

    return place


def nvidia_library(name):
    """Keeps the wheel's own layout: libtorch_cuda.so looks for ../../nvidia/*/lib from where it lies."""
    return name if name.startswith("nvidia/") and ".so" in Path(name).name else None


def unpack(target, chosen, links):
    """Unpacks from each wheel the files to which its function gives a place, adds the links, renames the whole."""
    say(f"unpacking into {target}")
    aside = target.with_name(f"{target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    for wheel, place in chosen.items():
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                relative = place(member.filename)
                if relative is None or member.is_dir():
                    continue
                path = aside / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(path, "wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
    for relative, aim in links.items():
        (aside / relative).symlink_to(aim)
    # Later runs take a directory that stands for a whole one, also after a power cut.
    os.sync()
    aside.rename(target)


def point_cargo_at(directory):
    """Makes plain `cargo build` and `cargo test` find LibTorch in this checkout."""
    path = REPOSITORY / ".cargo" / "config.toml"
    wanted = f'[env]\nLIBTORCH = "{directory}"\n'
    present = path.read_text() if path.exists() else ""
    if present == wanted:
        return
    if re.fullmatch(r'\s*(\[env\]\s*LIBTORCH = "[^"\n]*"\s*)?', present) is None:
        say(f'{path} has settings of its own and is left alone; LIBTORCH under its [env] must be "{directory}"')
        return
    write_whole(path, wanted.encode())


if __name__ == "__main__":
    run(main)
