"""Time series of the UEA and UCR archives."""

from __future__ import annotations

import zipfile

import pytest

from commutant import InputError
from commutant.data import _time_series, catalog, load_time_series


def archive(folder, lines, test=("1,2:3,4:b",)):
    (folder / "timeseries").mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "timeseries" / "uea_ucr_small.zip", "w") as out:
        for part, rows in (("TRAIN", lines), ("TEST", test)):
            out.writestr(f"GunPoint/GunPoint_{part}.ts", "\n".join(["#comment", "@dimensions 2", "@data", *rows, ""]))
    return str(folder)


def test_channels_lengths_and_labels(tmp_path, monkeypatch):
    monkeypatch.setitem(_time_series._KNOWN, "GunPoint", (2, 1, 2, (2, 3), 2))
    found = load_time_series("GunPoint", archive(tmp_path, ["1,2,3:4,5,6:b", "7,8:9,10:a"]))
    assert found.train[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert [len(s) for s in found.train] == [3, 2]
    assert (found.train_labels.tolist(), found.test_labels.tolist()) == ([1, 0], [1])
    entry = next(d for d in catalog(str(tmp_path)) if d.name == "GunPoint")
    assert (entry.kind, entry.state) == ("series", "data folder")
    assert len(entry.load().test) == 1


@pytest.mark.parametrize(
    ("lines", "test"),
    [
        (["1,2:3,4:a"], ("1,2:3,4:b",)),  # another number of series, and an unknown label
        (["1,x:3,4:a"], ("1,2:3,4:a",)),
        (["1,2:3:a"], ("1,2:3,4:a",)),
        (["1,nan:3,4:a"], ("1,2:3,4:a",)),
        ([], ("1,2:3,4:a",)),
    ],
)
def test_damaged_copies_are_named(tmp_path, lines, test):
    with pytest.raises(InputError, match="is damaged"):
        load_time_series("GunPoint", archive(tmp_path, lines, test))


def test_what_is_not_there_is_named(tmp_path, monkeypatch, unchecked):
    monkeypatch.delenv("COMMUTANT_DATA", raising=False)
    with pytest.raises(InputError, match=r"data folder .* with timeseries/uea_ucr_small.zip"):
        load_time_series("JapaneseVowels")
    with pytest.raises(InputError, match="name must be one of"):
        load_time_series("Vowels")
    archive(tmp_path, [])
    with pytest.raises(InputError, match="is damaged"):
        load_time_series("ArrowHead", str(tmp_path))
