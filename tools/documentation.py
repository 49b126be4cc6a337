"""What MkDocs asks of this project: the pages that are found, and a tidy reference."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.house import documented, papers


def on_config(config):  # type: ignore[no-untyped-def]
    """Add a page for each paper and each module to the navigation of the documentation (a hook of MkDocs)."""
    found = {
        "Papers": [{slug: f"papers/{slug}.md"} for slug in papers()],
        "Reference": [{name: f"reference/{name}.md"} for name in documented()],
    }
    for entry in config.nav:
        for title in found.keys() & entry.keys():
            entry[title] = [*(entry[title] or []), *found[title]]
    return config


class PublicBases(griffe.Extension):
    """Leave private base classes out of the reference (an extension of mkdocstrings)."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Keep the bases whose names are public."""
        cls.bases = [base for base in cls.bases if not str(base).split("[")[0].split(".")[-1].startswith("_")]


class Doctests(griffe.Extension):
    """Show examples as code in the reference: the parser knows sections `Examples:`, docstrings have `Example:`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section, so that its doctests become code blocks."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
