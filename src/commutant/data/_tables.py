"""Tables with classes: what scikit-learn bundles, what Breiman generated, and the 121 of Fernandez-Delgado et al."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError, require
from ._graphs import data_folder

BUNDLED = ("digits", "iris", "wine", "breast-cancer")
GENERATED = ("waveform", "twonorm", "ringnorm")


@dataclass(frozen=True)
class Table:
    """Rows of features, each with its class.

    Attributes:
        x: as they come; standardise on the training part.
        y: classes from 0.
        source: where they are from.
    """

    x: Float[Tensor, "rows features"]
    y: Int[Tensor, " rows"]
    source: str

    def sample(self, generator: torch.Generator, rows: int) -> Table:
        """At most so many rows, drawn without replacement."""
        picked = torch.randperm(len(self.x), generator=generator)[:rows]
        return Table(self.x[picked], self.y[picked], self.source)

    def split(self, generator: torch.Generator, *shares: float) -> list[tuple[Tensor, Tensor]]:
        """Parts of these shares of every class, the rest last, features standardised on the first part.

        Raises:
            InputError: for shares that are not positive or reach one.
        """
        if not shares or min(shares) <= 0 or sum(shares) >= 1:
            raise InputError(f"shares are positive and below one in all, got {shares}")
        parts: list[list[Tensor]] = [[] for _ in range(len(shares) + 1)]
        for label in self.y.unique():
            rows = (self.y == label).nonzero().flatten()
            rows = rows[torch.randperm(len(rows), generator=generator)]
            ends = [round(len(rows) * sum(shares[: i + 1])) for i in range(len(shares))]
            for part, (start, end) in zip(parts, zip([0, *ends], [*ends, len(rows)], strict=True), strict=True):
                part.append(rows[start:end])
        picked = [torch.cat(part) for part in parts]
        mean, spread = self.x[picked[0]].mean(0), self.x[picked[0]].std(0, correction=0)
        x = (self.x - mean) / torch.where(spread > 0, spread, 1.0)
        return [(x[rows], self.y[rows]) for rows in picked]


def tables_unavailable(names: tuple[str, ...], data_dir: str | None) -> str | None:
    """Why `load_table` would fail for one of the names, or None."""
    folder = data_folder(data_dir)
    for name in names:
        if name in BUNDLED or name in GENERATED:
            continue
        if folder is None or not _file(folder, name).is_file():
            return f"{name} needs a data folder (--data-dir) with uci121/{name}.npz"
    return None


def uci_tables(data_dir: str | None = None) -> list[str]:
    """The names of all tables in `DATA_DIR/uci121`, sorted.

    Raises:
        InputError: where there is none.
    """
    names = _stored(data_dir)
    if not names:
        raise InputError(str(uci_unavailable(data_dir)))
    return names


def uci_unavailable(data_dir: str | None) -> str | None:
    """Why `uci_tables` would fail, or None."""
    return None if _stored(data_dir) else "the UCI tables need a data folder (--data-dir) with uci121/NAME.npz"


def _stored(data_dir: str | None) -> list[str]:
    folder = data_folder(data_dir)
    return [] if folder is None else sorted(path.stem for path in (folder / "uci121").glob("*.npz"))


def load_table(name: str, data_dir: str | None = None) -> Table:
    """A table by name.

    Args:
        name: `"digits"`, `"iris"`, `"wine"`, `"breast-cancer"` of scikit-learn; `"waveform"`, `"twonorm"`,
            `"ringnorm"`, 2000 rows by the recipes of Breiman (1996), the same at every call; else from
            `DATA_DIR/uci121`.
        data_dir: the data folder.

    Raises:
        InputError: for a file that is missing or damaged.

    Example:
        >>> load_table("wine").x.shape
        torch.Size([178, 13])
    """
    reason = tables_unavailable((name,), data_dir)
    if reason is not None:
        raise InputError(reason)
    if name in BUNDLED:
        bundled = getattr(require("sklearn.datasets", "evidence"), f"load_{name.replace('-', '_')}")()
        x, y = torch.from_numpy(bundled.data).float(), torch.from_numpy(bundled.target).long()
        return Table(x, y, f"scikit-learn {name}")
    if name in GENERATED:
        return Table(*_generated(name), f"{name}, 2000 rows generated")
    path = _file(Path(str(data_folder(data_dir))), name)
    try:
        with np.load(path) as stored:
            x, y = torch.from_numpy(stored["X"]).float(), torch.from_numpy(stored["y"]).long()
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if len(x) != len(y) or x.ndim != 2 or not bool(torch.isfinite(x).all()):
        raise InputError(f"{path} is damaged: {tuple(x.shape)} features and {len(y)} classes")
    return Table(x, y, f"UCI {name}")


def _generated(name: str, rows: int = 2000) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if name == "waveform":
        y = torch.randint(3, (rows,), generator=generator)
        at = torch.arange(1, 22).float()
        waves = torch.stack([(6 - (at - centre).abs()).clamp(min=0) for centre in (11, 15, 7)])
        pairs = torch.tensor([[0, 1], [0, 2], [1, 2]])[y]
        mix = torch.rand(rows, 1, generator=generator)
        x = mix * waves[pairs[:, 0]] + (1 - mix) * waves[pairs[:, 1]]
        return x + torch.randn(rows, 21, generator=generator), y
    y = torch.randint(2, (rows,), generator=generator)
    x, shift = torch.randn(rows, 20, generator=generator), 2 / 20**0.5
    if name == "twonorm":
        return x + shift * (2.0 * y[:, None] - 1), y
    return torch.where(y[:, None] == 0, 2 * x, x + shift), y


def _file(folder: Path, name: str) -> Path:
    return folder / "uci121" / f"{name}.npz"
