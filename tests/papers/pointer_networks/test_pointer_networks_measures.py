"""Experiments of `pointer-networks`, far smaller than at any scale, and their rivals."""

from __future__ import annotations

import pytest
import torch

from commutant import InputError
from commutant.data import hull_examples
from commutant.papers.pointer_networks.measures import distances, hull_figures, nearest_neighbors
from commutant.papers.pointer_networks.models import HullTagger, fixed_vocabulary
from commutant.permutations import PointerNetwork, same_polygon

TRAINED = {"width": 8, "steps": 2, "batch_size": 4, "learning_rate": 1e-3, "warmup": 1, "test": 6}
TINY = {
    "hulls": TRAINED | {"n": 5},
    "lengths": TRAINED | {"trained": [4, 5], "sizes": [5, 10, 15, 20, 30]},
    "triangulations": TRAINED | {"n": 4},
    "tours": TRAINED | {"trained": [3, 5], "sizes": [5, 10], "beam": 2},
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("pointer-networks", name, TINY[name])


@pytest.mark.parametrize("attention", [False, True])
def test_a_fixed_vocabulary_serves_one_size_alone(attention):
    torch.manual_seed(0)
    network = fixed_vocabulary(8, 5, attention)
    x, targets = torch.rand(2, 5, 2), torch.tensor([[0, 4, -1], [1, 2, -1]])
    scores = network(x, targets)
    assert scores.shape == (2, 3, 6)
    network.loss(x, targets).backward()
    unused = {n for n, p in network.named_parameters() if p.grad is None}
    assert all(n.startswith(("decoder.attention", "decoder.stop")) for n in unused)
    assert any(n.startswith("decoder.attention") for n in unused) == (not attention)
    with pytest.raises(InputError, match="a fixed vocabulary of 5 elements can't serve sets of 7"):
        network(torch.rand(2, 7, 2), targets)


def test_a_tagger_that_knows_the_hull_draws_it():
    examples = hull_examples(torch.Generator().manual_seed(0), 30, (3, 9))
    tagger = HullTagger(8, "deepsets")
    vertex = torch.zeros(30, 10).scatter(1, torch.where(examples.targets < 0, 9, examples.targets), 1)[:, :9]
    tagger.forward = lambda x, lengths: 2 * vertex - 1
    assert bool(same_polygon(tagger.polygons(examples.x, examples.lengths), examples.targets).all())
    found = hull_figures("tagger", tagger, examples)
    assert found == {"tagger": 1.0, "tagger-simple": 1.0, "tagger-area": pytest.approx(1.0)}


def test_a_tagger_ignores_padding():
    torch.manual_seed(0)
    tagger, x, lengths = HullTagger(8, "set"), torch.rand(2, 6, 2), torch.tensor([6, 4])
    other = x.clone()
    other[1, 4:] = 7
    assert torch.equal(tagger(x, lengths)[0], tagger(other, lengths)[0])
    assert torch.allclose(tagger(x, lengths)[1, :4], tagger(x[1:, :4], lengths[1:])[0], atol=1e-6)
    targets = torch.tensor([[0, 1, 2, 0, -1], [0, 1, 3, 0, -1]])
    assert torch.isfinite(tagger.loss(x, targets, lengths))


def test_nearest_neighbors_go_to_the_nearest():
    x = torch.tensor([[[0.0, 0], [5, 0], [1, 0], [3, 0]]])
    assert nearest_neighbors(distances(x)).tolist() == [[0, 2, 3, 1]]


def test_polygons_of_a_network_are_decoded_without_a_constraint():
    torch.manual_seed(0)
    examples = hull_examples(torch.Generator().manual_seed(0), 8, 5)
    found = hull_figures("pointer", PointerNetwork(2, 8).eval(), examples)
    assert found["pointer"] == 0  # an untrained network
    assert set(found) == {"pointer", "pointer-simple", "pointer-area"}
