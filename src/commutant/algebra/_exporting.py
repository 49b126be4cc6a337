"""Detection of `torch.export`."""

from __future__ import annotations

import torch


def exporting() -> bool:
    """Return whether `torch.export` is tracing, so that Python code must not depend on values."""
    return bool(getattr(torch.compiler, "is_exporting", lambda: False)())
