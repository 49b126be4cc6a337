"""Synthetic tasks and texts compared with slow definitions."""

import gzip
import hashlib

import pytest
import torch

from commutant import InputError
from commutant.data import associative_recall, character_text, k_hop, keep_nth, text_unavailable


def g(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_hops_are_what_a_loop_finds(hops):
    task = k_hop(g(), 6, hops=hops, length=30, vocabulary=4)
    for row, targets in zip(task.tokens.tolist(), task.targets.tolist(), strict=True):
        for t, target in enumerate(targets):
            place = t
            for _ in range(hops):
                earlier = [s for s in range(place) if row[s] == row[place]] if place is not None else []
                place = earlier[-1] + 1 if earlier else None
            assert target == (-100 if place is None else row[place])


def test_recall_asks_each_key_for_its_value():
    task = associative_recall(g(1), 8, pairs=3, length=20, vocabulary=30)
    for row, targets in zip(task.tokens.tolist(), task.targets.tolist(), strict=True):
        values = dict(zip(row[0:6:2], row[1:6:2], strict=True))
        assert len(values) == 3
        assert {t: y for t, y in zip(row, targets, strict=True) if y >= 0} == values
        assert all((token < 10) == (target >= 0) for token, target in zip(row[6:], targets[6:], strict=True))


def test_keep_nth_counts_the_last_position_alone():
    task = keep_nth(g(), 4, length=9, vocabulary=6, n=3)
    assert torch.equal(task.targets[:, -1], task.tokens[:, 2])
    assert (task.targets[:, :-1] == -100).all()


def test_the_default_text_is_there_and_repeats_itself():
    text, again = character_text(), character_text()
    assert torch.equal(text.train, again.train)
    assert len(text.train) + len(text.valid) == 2_000_000
    assert int(max(text.train.max(), text.valid.max())) < len(text.alphabet)
    assert text.alphabet[int(text.train[0])] in text.alphabet
    excerpt = text.batch(g(), 3, 50)
    assert excerpt.shape == (3, 50)
    assert "def" in "".join(text.alphabet[c] for c in text.train[:100_000].tolist())


def test_texts_from_files_are_checked(tmp_path, monkeypatch):
    (tmp_path / "text").mkdir()
    path = tmp_path / "text" / "tinyshakespeare.txt.gz"
    assert "with text/tinyshakespeare.txt.gz" in text_unavailable("tinyshakespeare", str(tmp_path))
    path.write_bytes(gzip.compress(b"To be"))
    with pytest.raises(InputError, match="holds 5 characters"):
        character_text("tinyshakespeare", str(tmp_path))
    path.write_bytes(gzip.compress(b"To be")[:9])
    with pytest.raises(InputError, match="is damaged"):
        character_text("tinyshakespeare", str(tmp_path))
    text = b"abcd" * 278_848 + b"ab"
    path.write_bytes(gzip.compress(text))
    with pytest.raises(InputError, match="does not hold the text"):
        character_text("tinyshakespeare", str(tmp_path))
    monkeypatch.setattr("commutant.data._text._DIGEST", hashlib.sha256(text).hexdigest())
    assert len(character_text("tinyshakespeare", str(tmp_path)).alphabet) == 5


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: keep_nth(g(), 2, length=4), "n <= length"),
        (lambda: associative_recall(g(), 2, pairs=9, vocabulary=12), "9 pairs"),
        (lambda: k_hop(g(), 2, hops=0), "1 hop"),
        (lambda: character_text("novel"), "'novel'"),
        (lambda: character_text().batch(g(), 1, 5, "validation"), "'validation'"),
        (lambda: character_text().batch(g(), 1, 10**7), "1 to"),
    ],
)
def test_errors(call, said, unchecked):
    with pytest.raises(InputError, match=said):
        call()
