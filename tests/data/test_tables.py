"""Tables with class labels: bundled, generated and from a data folder."""

import numpy as np
import pytest
import torch

from commutant._errors import InputError
from commutant.data import load_table, tables_unavailable


@pytest.mark.parametrize(
    ("name", "rows", "features", "classes"),
    [("digits", 1797, 64, 10), ("iris", 150, 4, 3), ("wine", 178, 13, 3), ("breast-cancer", 569, 30, 2),
     ("waveform", 2000, 21, 3), ("twonorm", 2000, 20, 2), ("ringnorm", 2000, 20, 2)],
)  # fmt: skip
def test_tables_without_a_folder(name, rows, features, classes):
    table = load_table(name)
    assert table.x.shape == (rows, features)
    assert table.y.unique().tolist() == list(range(classes))
    again = load_table(name)
    assert torch.equal(table.x, again.x)


def test_generated_tables_are_what_breiman_says():
    twonorm, ringnorm, waveform = (load_table(n) for n in ("twonorm", "ringnorm", "waveform"))
    sign = torch.where(twonorm.x.sum(1) > 0, 1, 0)
    assert float((sign == twonorm.y).float().mean()) == pytest.approx(0.977, abs=0.01)  # Bayes: 2.3 % errors
    assert float(ringnorm.x[ringnorm.y == 0].var()) == pytest.approx(4, rel=0.05)
    assert float(ringnorm.x[ringnorm.y == 1].mean()) == pytest.approx(2 / 20**0.5, rel=0.05)
    assert float(waveform.x[:, 0].var()) == pytest.approx(1, rel=0.1)  # noise alone at the end


def test_a_split_keeps_classes_apart_and_standardizes_on_its_first_part():
    table = load_table("wine")
    parts = table.split(torch.Generator().manual_seed(0), 0.5, 0.25)
    assert sum(len(x) for x, _ in parts) == 178
    first = parts[0][0]
    assert torch.allclose(first.mean(0), torch.zeros(13), atol=1e-5)
    assert torch.allclose(first.std(0, correction=0), torch.ones(13), atol=1e-5)
    for _, y in parts:
        assert float((y == 1).float().mean()) == pytest.approx(71 / 178, abs=0.03)
    with pytest.raises(InputError, match="shares"):
        table.split(torch.Generator(), 0.5, 0.5)


def test_a_folder_of_the_121(tmp_path, monkeypatch):
    monkeypatch.delenv("COMMUTANT_DATA", raising=False)
    assert "uci121/abalone.npz" in tables_unavailable(("iris", "abalone"), None)
    with pytest.raises(InputError, match="--data-dir"):
        load_table("abalone")
    (tmp_path / "uci121").mkdir()
    path = tmp_path / "uci121" / "abalone.npz"
    np.savez(path, X=np.zeros((4, 2), dtype=np.float32), y=np.array([0, 1, 0, 1], dtype=np.int16))
    assert load_table("abalone", str(tmp_path)).y.tolist() == [0, 1, 0, 1]
    np.savez(path, X=np.zeros((4, 2), dtype=np.float32), y=np.zeros(3, dtype=np.int16))
    with pytest.raises(InputError, match="damaged"):
        load_table("abalone", str(tmp_path))
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        load_table("abalone", str(tmp_path))
