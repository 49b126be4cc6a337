"""UCI tables on OpenML, named as in the study of 121 tables by Fernandez-Delgado et al. (2014)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._errors import InputError, require
from ._sources import Source, cache_home


class OpenMLTable(NamedTuple):
    """Name and version of a table on OpenML, with the sizes used to check a copy."""

    name: str
    rows: int
    features: int
    classes: tuple[int, ...]
    """Number of rows of each class, smallest first."""


_LETTERS = (734, 734, 736, 739, 747, 748, 752, 753, 755, 758, 761, 764, 766, 768, 773, 775, 783, 783, 786, 787, 789,
            792, 796, 803, 805, 813)  # fmt: skip
OPENML = {
    "balance-scale": OpenMLTable("balance-scale", 625, 4, (49, 288, 288)),
    "blood": OpenMLTable("blood-transfusion-service-center", 748, 4, (178, 570)),
    "car": OpenMLTable("car", 1728, 6, (65, 69, 384, 1210)),
    "conn-bench-sonar-mines-rocks": OpenMLTable("sonar", 208, 60, (97, 111)),
    "ecoli": OpenMLTable("ecoli", 336, 7, (2, 2, 5, 20, 35, 52, 77, 143)),
    "glass": OpenMLTable("glass", 214, 9, (9, 13, 17, 29, 70, 76)),
    "haberman-survival": OpenMLTable("haberman", 306, 3, (81, 225)),
    "ionosphere": OpenMLTable("ionosphere", 351, 34, (126, 225)),
    "letter": OpenMLTable("letter", 20_000, 16, _LETTERS),
    "optical": OpenMLTable("optdigits", 5620, 64, (554, 554, 557, 558, 558, 562, 566, 568, 571, 572)),
    "page-blocks": OpenMLTable("page-blocks", 5473, 10, (28, 88, 115, 329, 4913)),
    "parkinsons": OpenMLTable("parkinsons", 195, 22, (48, 147)),
    "pendigits": OpenMLTable("pendigits", 10_992, 16, (1055, 1055, 1055, 1055, 1056, 1142, 1143, 1143, 1144, 1144)),
    "pima": OpenMLTable("diabetes", 768, 8, (268, 500)),
    "seeds": OpenMLTable("seeds", 210, 7, (70, 70, 70)),
    "spambase": OpenMLTable("spambase", 4601, 57, (1813, 2788)),
    "statlog-heart": OpenMLTable("heart-statlog", 270, 13, (120, 150)),
    "statlog-image": OpenMLTable("segment", 2310, 19, (330,) * 7),
    "statlog-vehicle": OpenMLTable("vehicle", 846, 18, (199, 212, 217, 218)),
    "tic-tac-toe": OpenMLTable("tic-tac-toe", 958, 9, (332, 626)),
    "wall-following": OpenMLTable("wall-robot-navigation", 5456, 24, (328, 826, 2097, 2205)),
    "waveform-noise": OpenMLTable("waveform-5000", 5000, 40, (1653, 1655, 1692)),
    "yeast": OpenMLTable("yeast", 1484, 8, (5, 20, 30, 35, 44, 51, 163, 244, 429, 463)),
}


def table_source(name: str) -> Source:
    """Return the source of a table of the study: a data folder, and OpenML where the table is known there."""
    files = (f"uci121/{name}.npz",)
    if name not in OPENML:
        return Source(name, files)
    return Source(name, files, f"OpenML {OPENML[name].name}", "sklearn", "evidence", partial(_is_cached, name))


def openml_table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return features as OpenML stores them, categories as numbers, and classes from 0 in the order of their names.

    scikit-learn caches the files and checks their MD5.
    """
    known = OPENML[name]
    with table_source(name).downloading():
        found = require("sklearn.datasets", "evidence").fetch_openml(
            known.name, version=1, as_frame=False, parser="liac-arff", data_home=str(_cache(name))
        )
        x = np.asarray(found.data, np.float32)
        _, y = np.unique(found.target, return_inverse=True)
    classes = tuple(sorted(np.bincount(y).tolist()))
    if x.shape != (known.rows, known.features) or classes != known.classes or not np.isfinite(x).all():
        raise InputError(
            f"OpenML {known.name} has shape {x.shape} and classes of {classes} rows, expected "
            f"{(known.rows, known.features)} finite features and {known.classes}; delete {_cache(name)} and try again"
        )
    return x, y


def _cache(name: str) -> Path:
    return cache_home() / "commutant" / "openml" / name


def _is_cached(name: str) -> bool:
    return any(path.is_file() for path in _cache(name).glob("**/download/*.gz"))  # the rows come last
