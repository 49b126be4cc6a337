"""Instances in the format of TSPLIB."""

from __future__ import annotations

import contextlib
import zipfile

import pytest
import torch

from commutant import InputError
from commutant.data import _tsplib, catalog, load_tsplib, parse_tsplib

SQUARE = """NAME : square
TYPE : TSP
DIMENSION : 4
EDGE_WEIGHT_TYPE : EUC_2D
NODE_COORD_SECTION
1 0 0
2 3.0e0 0
3 3 4
4 0 4
EOF
"""
TOUR = "NAME : square.opt.tour\nTYPE : TOUR\nDIMENSION : 4\nTOUR_SECTION\n1 2\n3 4\n-1\nEOF\n"


def explicit(form, numbers, n=3):
    return (
        f"NAME: x\nTYPE: TSP\nDIMENSION: {n}\nEDGE_WEIGHT_TYPE: EXPLICIT\nEDGE_WEIGHT_FORMAT: {form}\n"
        f"EDGE_WEIGHT_SECTION\n{numbers}\nEOF"
    )


@pytest.mark.parametrize(
    ("form", "numbers"),
    [
        ("FULL_MATRIX", "0 1 2 1 0 3\n2 3 0"),
        ("UPPER_ROW", "1 2 3"),
        ("LOWER_ROW", "1 2\n 3"),
        ("UPPER_DIAG_ROW", "0 1 2 0 3 0"),
        ("LOWER_DIAG_ROW", "0 1 0 2 3 0"),
    ],
)
def test_explicit_distances(form, numbers):
    instance = parse_tsplib(explicit(form, numbers))
    assert instance.distance.tolist() == [[0, 1, 2], [1, 0, 3], [2, 3, 0]]
    assert instance.points is None


def test_distances_of_points():
    square = parse_tsplib(SQUARE, TOUR, 14)
    assert square.distance.tolist() == [[0, 3, 5, 4], [3, 0, 4, 5], [5, 4, 0, 3], [4, 5, 3, 0]]
    assert square.length(square.tour) == square.optimum == 14
    assert square.points.shape == (4, 2)
    ceil = parse_tsplib(SQUARE.replace("EUC_2D", "CEIL_2D").replace("3 4\n", "3 4.01\n"))
    assert int(ceil.distance[1, 2]) == 5
    att = parse_tsplib(SQUARE.replace("EUC_2D", "ATT"))
    assert int(att.distance[0, 2]) == 2  # 5 / sqrt(10) = 1.58 rounds to 2
    assert int(att.distance[0, 1]) == 1  # 0.95 rounds to 1
    up = parse_tsplib(SQUARE.replace("EUC_2D", "ATT").replace("4 0 4", "4 0 10.5"))
    assert int(up.distance[0, 3]) == 4  # 3.32 rounds to 3, which is shorter, so 4


def test_geographical_distances():
    """The first two cities of burma14 (Rangoon and Mandalay) are 153 km apart by the rules of TSPLIB."""
    text = SQUARE.replace("EUC_2D", "GEO").replace("1 0 0", "1 16.47 96.10").replace("2 3.0e0 0", "2 16.47 94.44")
    assert int(parse_tsplib(text).distance[0, 1]) == 153


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SQUARE.replace("TSP", "ATSP"), "TYPE TSP"),
        (SQUARE.replace("DIMENSION : 4", ""), "with a DIMENSION"),
        (SQUARE.replace("EUC_2D", "XRAY1"), "EDGE_WEIGHT_TYPE out of"),
        (SQUARE.replace("4 0 4\n", ""), "must have 4 points in the plane, one a line, got 3"),
        (SQUARE.replace("4 0 4\n", "4 0 a\n"), "must hold numbers"),
        (explicit("UPPER_ROW", "1 2"), "must have 3 distances as UPPER_ROW, got 2"),
        (explicit("UPPER_COL", "1 2 3"), "full, upper or lower matrix in rows"),
        (explicit("FULL_MATRIX", "0 1 2 9 0 3 2 3 0"), "symmetric"),
        ("", "may be cut off"),
        ("EOF", "TYPE TSP"),
        (SQUARE.removesuffix(" 4\nEOF\n"), "may be cut off"),
        (SQUARE.replace("DIMENSION : 4", "DIMENSION : \u00b2"), "with a DIMENSION"),
        (SQUARE.replace("4 0 4", "4 0 nan"), "numbers below"),
        (SQUARE.replace("4 0 4", "4 0 1e25"), "numbers below"),
        (SQUARE.replace("4 0 4", "3 0 4"), "numbered from 1 to 4"),
        (SQUARE.replace("4 0 4", "7 0 4"), "numbered from 1 to 4"),
        (SQUARE.replace("1 0 0\n2 3.0e0 0\n3 3 4\n4 0 4", "1 0 0 1\n2 3 0 1\n3 3 4 1"), "in the plane"),
        (SQUARE.replace("EOF", "FIXED_EDGES_SECTION\n1 3\n-1\nEOF"), "FIXED_EDGES_SECTION, which is not supported"),
        (explicit("UPPER_ROW", "0.9 2.7 3.9"), "whole numbers as distances, got 0.9"),
        (explicit("UPPER_ROW", "1 2 3", 3_000_000), "must have 4499998500000 distances"),
    ],
)
def test_files_that_are_refused(text, words):
    with pytest.raises(InputError, match=words):
        parse_tsplib(text)


def test_points_are_in_the_order_of_their_numbers():
    mixed = SQUARE.replace("2 3.0e0 0\n3 3 4", "3 3 4\n2 3 0")
    assert parse_tsplib(mixed, TOUR).distance.tolist() == parse_tsplib(SQUARE).distance.tolist()


@pytest.mark.parametrize("order", ["1.9 2.2 3 4", "1 -2 3 4", "1 inf 2 3", "1 1 2 3", "1 2 3", ""])
def test_orders_that_are_no_tours(order):
    with pytest.raises(InputError, match=r"must visit 4 nodes once|numbers below"):
        parse_tsplib(SQUARE, TOUR.replace("1 2\n3 4", order))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("tour", [[0, 1, 2, 3], torch.tensor([0.0, 1, 2, 3]), torch.tensor([[0, 1, 2, 3]])])
def test_lengths_are_of_permutations(tour):
    with pytest.raises(InputError, match="must be a permutation"):
        parse_tsplib(SQUARE).length(tour)


def test_damaged_archives(tmp_path, monkeypatch):
    monkeypatch.setattr(_tsplib, "_COUNT", 1)
    folder = archive(tmp_path)
    path = tmp_path / "tsplib" / "tsplib.zip"
    whole = path.read_bytes()
    for place in range(10, len(whole) - 30, 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(InputError):  # and nothing else
            load_tsplib(folder)


def test_tours_that_are_refused():
    with pytest.raises(InputError, match="must visit 4 nodes once"):
        parse_tsplib(SQUARE, TOUR.replace("1 2", "1 1"))
    with pytest.raises(InputError, match=r"must be a permutation of 0 \.\. 3"):
        parse_tsplib(SQUARE).length(torch.tensor([0, 1, 2, 2]))


def archive(folder, optimum=14, tour=TOUR):
    (folder / "tsplib").mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "tsplib" / "tsplib.zip", "w") as out:
        out.writestr("tsplib/square.tsp", SQUARE)
        out.writestr("tsplib/square.opt.tour", tour)
    (folder / "tsplib" / "optima.csv").write_text(f"name,optimum\nsquare,{optimum}\n")
    return str(folder)


def test_a_folder_is_read_and_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(_tsplib, "_COUNT", 1)
    found = load_tsplib(archive(tmp_path))
    assert [i.name for i in found] == ["square"]
    assert load_tsplib(str(tmp_path), most=3) == []
    entry = next(d for d in catalog(str(tmp_path)) if d.name == "TSPLIB")
    assert (entry.kind, entry.state) == ("tours", "data folder")
    assert len(entry.load()) == 1
    with pytest.raises(InputError, match="is damaged: the tour of square"):
        load_tsplib(archive(tmp_path, 13))
    with pytest.raises(InputError, match="is damaged"):
        load_tsplib(archive(tmp_path, "x"))
    monkeypatch.setattr(_tsplib, "_COUNT", 2)
    with pytest.raises(InputError, match="is damaged: 1 instances"):
        load_tsplib(archive(tmp_path))


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("COMMUTANT_DATA", raising=False)
    with pytest.raises(InputError, match=r"data folder .* with tsplib/tsplib.zip"):
        load_tsplib()
