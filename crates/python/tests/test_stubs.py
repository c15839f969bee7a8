"""Stubs that are generated from proto/canet/v1 stand beside the package."""

import subprocess
import sys


def test_generated_code_is_found_beside_the_package(tmp_path):
    stubs = tmp_path / "canet" / "v1"
    stubs.mkdir(parents=True)
    (stubs / "recommender_pb2.py").write_text("NAME = 'generated'\n")
    program = "import canet, canet.v1.recommender_pb2 as stubs; print(canet.Client.__name__, stubs.NAME)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "Client generated", ran.stderr
