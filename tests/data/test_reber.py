"""Reber strings: the grammar, and shortcuts that must not work."""

from collections import Counter

import pytest
import torch

from commutant import InputError
from commutant.data import reber_accepts, reber_strings


@pytest.fixture(scope="module")
def strings():
    return reber_strings(torch.Generator().manual_seed(0), 1264, held_out=126)


def test_labels_are_what_the_grammar_says(strings):
    for part, size in zip(strings, (2276, 252), strict=True):
        assert len(part) == size
        assert [reber_accepts(text) for text in part.texts()] == part.labels.bool().tolist()
        assert part.labels.float().mean() == 0.5
    texts = [*strings[0].texts(), *strings[1].texts()]
    assert len(set(texts)) == len(texts)
    assert {len(t) for t in texts} <= set(range(13, 31))


@pytest.mark.parametrize("text", ["BTXSE", "BPVVE", "BTSSSXXTTVPSE", "BPTVPXVVE"])
def test_the_automaton(text):
    assert reber_accepts(text)
    assert not reber_accepts(text[:-1])
    assert not reber_accepts(text + "E")
    assert not reber_accepts("")


def feature_accuracy(train, test, feature):
    """Return the test accuracy of one feature, by the majority label of each of its values in training."""
    votes = {}
    for text, label in zip(train.texts(), train.labels.tolist(), strict=True):
        votes.setdefault(feature(text), Counter())[label] += 1
    guess = [votes[f].most_common(1)[0][0] if (f := feature(t)) in votes else 0 for t in test.texts()]
    return sum(g == y for g, y in zip(guess, test.labels.tolist(), strict=True)) / len(test)


def test_no_shortcut_tells_the_label(strings):
    """Check law 10; in the data of the thesis, the last four letters alone give 0.94, length alone 0.78."""
    legal = {a + b for t, y in zip(strings[0].texts(), strings[0].labels, strict=True) if y for a, b in zip(t, t[1:])}  # noqa: B905, RUF007
    shortcuts = {
        "length": len,
        "first three": lambda t: t[:3],
        "last three": lambda t: t[-3:],
        "last four": lambda t: t[-4:],
        "last six": lambda t: t[-6:],
        "pairs": lambda t: all(t[i : i + 2] in legal for i in range(len(t) - 1)),
        "letters": lambda t: tuple(sorted(Counter(t).items()))[:2],
    }
    for name, feature in shortcuts.items():
        assert feature_accuracy(*strings, feature) < 0.65, name


def test_it_is_a_function_of_the_generator():
    one, two = (reber_strings(torch.Generator().manual_seed(5), 20)[0].texts() for _ in range(2))
    assert one == two
    assert one != reber_strings(torch.Generator().manual_seed(6), 20)[0].texts()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"pairs": 5, "held_out": 6}, "held_out between"), ({"pairs": 9, "min_length": 8, "max_length": 9}, "found only")],
)
def test_errors(options, said):
    with pytest.raises(InputError, match=said):
        reber_strings(torch.Generator().manual_seed(0), **options)
    assert len(reber_strings(torch.Generator(), 0)[0]) == 0
