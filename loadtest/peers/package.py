"""What the peers take from the Python package of this checkout."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "crates" / "python" / "python"))

from canet.torch import Slice, window  # noqa: E402

__all__ = ["Slice", "window"]
