"""Time series with classes, of the UEA and UCR archives."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from .._checks import one_of
from .._errors import InputError
from ._sources import Source

_FILE = "timeseries/uea_ucr_small.zip"
_KNOWN = {
    "ArrowHead": (36, 175, 1, (251, 251), 3),
    "BasicMotions": (40, 40, 6, (100, 100), 4),
    "GunPoint": (50, 150, 1, (150, 150), 2),
    "ItalyPowerDemand": (67, 1029, 1, (24, 24), 2),
    "JapaneseVowels": (270, 370, 12, (7, 29), 9),
}
"""Number of training and test series, channels, shortest and longest length, and classes."""
TIME_SERIES = tuple(_KNOWN)


@dataclass(frozen=True)
class TimeSeries:
    """Time series with classes, in the training and test parts of the archive.

    Attributes:
        train: Training series, each `(length, channels)`.
        train_labels: Class index of each, from 0.
        test: Test series.
        test_labels: Class index of each.
    """

    train: list[Tensor]
    train_labels: Int[Tensor, " train"]
    test: list[Tensor]
    test_labels: Int[Tensor, " test"]


def time_series_source(name: str) -> Source:
    """Return the source of a data set of time series."""
    return Source(name, (_FILE,))


def load_time_series(name: str, data_dir: str | None = None) -> TimeSeries:
    """Load time series with classes from a data folder.

    Args:
        name: `"ArrowHead"`, `"BasicMotions"`, `"GunPoint"`, `"ItalyPowerDemand"` or `"JapaneseVowels"`, whose series
            have 7 to 29 steps.
        data_dir: Data folder with `timeseries/uea_ucr_small.zip`, which holds `NAME/NAME_TRAIN.ts` and
            `NAME/NAME_TEST.ts` of the archive; by default `$COMMUTANT_DATA`.

    Raises:
        InputError: For an unknown name, a missing folder, or a damaged copy.
    """
    one_of("name", name, _KNOWN)
    source = time_series_source(name)
    folder = source.folder(data_dir)
    if folder is None:
        raise InputError(str(source.unavailable(data_dir)))
    train, train_labels = _read(folder / _FILE, name, "TRAIN")
    test, test_labels = _read(folder / _FILE, name, "TEST")
    classes = sorted(set(train_labels))
    lengths = [len(series) for series in train + test]
    channels = {series.shape[1] for series in train + test}
    found = (len(train), len(test), max(channels, default=0), (min(lengths), max(lengths)), len(classes))
    if found != _KNOWN[name] or len(channels) != 1 or not set(test_labels) <= set(classes):
        raise InputError(f"{folder / _FILE} is damaged: {name} has {found}, expected {_KNOWN[name]}")
    codes = [torch.tensor([classes.index(label) for label in labels]) for labels in (train_labels, test_labels)]
    return TimeSeries(train, codes[0], test, codes[1])


def _read(path: Path, name: str, part: str) -> tuple[list[Tensor], list[str]]:
    """Return the series and labels of one file: channels separated by colons, then the label."""
    series, labels = [], []
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}/{name}_{part}.ts") as raw:
            lines = [line.strip() for line in io.TextIOWrapper(raw, encoding="utf-8")]
        for line in lines[lines.index("@data") + 1 :]:
            if line:
                *channels, label = line.split(":")
                values = torch.tensor([[float(v) for v in channel.split(",")] for channel in channels])
                series.append(values.T.contiguous())
                labels.append(label)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    if not series or not all(bool(s.isfinite().all()) for s in series):
        raise InputError(f"{path} is damaged: {name}_{part} has no series, or values that are not finite")
    return series, labels
