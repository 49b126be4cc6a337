"""Tables with class labels, from scikit-learn, Breiman's generators or the UCI repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError, require
from ._openml import OPENML, openml_table, table_source
from ._sources import data_folder

BUNDLED = ("digits", "iris", "wine", "breast-cancer")
GENERATED = ("waveform", "twonorm", "ringnorm")


@dataclass(frozen=True)
class Table:
    """Rows of features with class labels.

    Attributes:
        x: Features as stored, `(rows, features)`; standardize them on the training part.
        y: Class indices from 0, `(rows,)`.
        source: Origin of the table, in words.
    """

    x: Float[Tensor, "rows features"]
    y: Int[Tensor, " rows"]
    source: str

    def sample(self, generator: torch.Generator, rows: int) -> Table:
        """Draw rows without replacement.

        Args:
            generator: Source of randomness.
            rows: Number of rows; a shorter table is returned whole in random order.
        """
        picked = torch.randperm(len(self.x), generator=generator)[:rows]
        return Table(self.x[picked], self.y[picked], self.source)

    def split(self, generator: torch.Generator, *shares: float) -> list[tuple[Tensor, Tensor]]:
        """Split the rows at random, class by class, and standardize all features on the first part.

        Args:
            generator: Source of randomness.
            *shares: Share of each class in each part; the remaining rows form one more part.

        Returns:
            Features and classes of each part.

        Raises:
            InputError: If a share is not positive, or the sum of the shares is not below one.
        """
        if not shares or min(shares) <= 0 or sum(shares) >= 1:
            raise InputError(f"shares must be positive with a sum below one, got {shares}")
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
    """Return the reason why `load_table` would fail or would have to download one of the tables, or None.

    This function does not access the network: a table that is only online counts as unavailable until it is cached.

    Args:
        names: Names of tables, as for `load_table`.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.
    """
    elsewhere = (name for name in names if name not in BUNDLED and name not in GENERATED)
    return next(filter(None, (table_source(name).unavailable(data_dir) for name in elsewhere)), None)


def uci_tables(data_dir: str | None = None) -> list[str]:
    """Return the sorted names of all tables in the folder `uci121` of the data folder.

    Args:
        data_dir: Data folder; by default `$COMMUTANT_DATA`.

    Raises:
        InputError: If there is no such folder.
    """
    names = stored_tables(data_dir)
    if not names:
        raise InputError(str(uci_unavailable(data_dir)))
    return names


def uci_unavailable(data_dir: str | None) -> str | None:
    """Return the reason why `uci_tables` would fail, or None.

    Args:
        data_dir: Data folder; by default `$COMMUTANT_DATA`.
    """
    if stored_tables(data_dir):
        return None
    return "the 121 UCI tables are read from a data folder (--data-dir or COMMUTANT_DATA) with uci121/NAME.npz"


def stored_tables(data_dir: str | None) -> list[str]:
    """Return the sorted names of the tables in the data folder, or an empty list without a folder."""
    folder = data_folder(data_dir)
    return [] if folder is None else sorted(path.stem for path in (folder / "uci121").glob("*.npz"))


def load_table(name: str, data_dir: str | None = None) -> Table:
    """Load a table by name.

    A UCI table is read from the data folder if it is there, otherwise from OpenML through the cache of scikit-learn.
    Columns in the folder `uci121` are standardized as in the study of 121 tables by Fernandez-Delgado et al. (2014).
    OpenML has the original values, with categories as numbers; its data are checked by MD5, shape and classes.

    Args:
        name: Name of the table. `"digits"`, `"iris"`, `"wine"` and `"breast-cancer"` are bundled with scikit-learn.
            `"waveform"`, `"twonorm"` and `"ringnorm"` are 2000 rows generated as in Breiman (1996), the same in every
            call. All other names are tables of the study; a data folder holds them as `uci121/NAME.npz` with `X` and
            `y`, and `commutant data` lists those on OpenML.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.

    Raises:
        InputError: For a damaged copy, or a table that is neither local nor downloadable.

    Example:
        >>> load_table("wine").x.shape
        torch.Size([178, 13])
    """
    if name in BUNDLED:
        bundled = getattr(require("sklearn.datasets", "evidence"), f"load_{name.replace('-', '_')}")()
        x, y = torch.from_numpy(bundled.data).float(), torch.from_numpy(bundled.target).long()
        return Table(x, y, f"scikit-learn {name}")
    if name in GENERATED:
        return Table(*_generated(name), f"{name}, 2000 rows generated")
    source = table_source(name)
    folder = source.folder(data_dir)
    if folder is not None:
        return Table(*_stored(folder / source.files[0]), f"UCI {name}")
    if name not in OPENML:
        raise InputError(str(source.unavailable(data_dir)))
    features, classes = openml_table(name)
    return Table(torch.from_numpy(features), torch.from_numpy(classes).long(), f"UCI {name} ({source.origin})")


def _stored(path: Path) -> tuple[Tensor, Tensor]:
    try:
        with np.load(path) as stored:
            x, y = torch.from_numpy(stored["X"]).float(), torch.from_numpy(stored["y"]).long()
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if len(x) != len(y) or x.ndim != 2 or not bool(torch.isfinite(x).all()):
        raise InputError(f"{path} is damaged: features of shape {tuple(x.shape)} and {len(y)} classes")
    return x, y


def _generated(name: str, rows: int = 2000) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if name == "waveform":
        y = torch.randint(3, (rows,), generator=generator)
        at = torch.arange(1, 22).float()
        waves = torch.stack([(6 - (at - center).abs()).clamp(min=0) for center in (11, 15, 7)])
        pairs = torch.tensor([[0, 1], [0, 2], [1, 2]])[y]
        mix = torch.rand(rows, 1, generator=generator)
        x = mix * waves[pairs[:, 0]] + (1 - mix) * waves[pairs[:, 1]]
        return x + torch.randn(rows, 21, generator=generator), y
    y = torch.randint(2, (rows,), generator=generator)
    x, shift = torch.randn(rows, 20, generator=generator), 2 / 20**0.5
    if name == "twonorm":
        return x + shift * (2.0 * y[:, None] - 1), y
    return torch.where(y[:, None] == 0, 2 * x, x + shift), y
