"""Whether `torch.export` traces."""

from __future__ import annotations

import torch


def exporting() -> bool:
    """Return whether `torch.export` traces: values are then unknown, so that nothing may depend on them in Python."""
    return bool(getattr(torch.compiler, "is_exporting", lambda: False)())
