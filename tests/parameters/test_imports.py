"""The tool that finds modules of a room that import each other in a circle."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools import house


def test_circles_are_found(tmp_path, monkeypatch):
    files = {
        "__init__": "from ._a import A",
        "_a": "from . import _b\n",
        "_b": "def late():\n    from ._c import C\n    return C\n",
        "_c": "import commutant.room._a\n",
        "_d": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ._e import E\n",
        "_e": "from commutant.room._d import D\nfrom ..other import X\n",
    }
    (tmp_path / "room").mkdir()
    for name, text in files.items():
        (tmp_path / "room" / f"{name}.py").write_text(text)
    monkeypatch.setattr(house, "SOURCE", tmp_path)
    assert house.cycles("room") == [["room._a", "room._b", "room._c"]]
