"""Evolution of programs, and the variance of their scores."""

import itertools

import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.programs import GraphMachine, evolve, variance_components


def wanted_edges(graphs, seeds):
    """Return scores that prefer graphs with two edges more than a tree of as many nodes."""
    g = torch.Generator().manual_seed(0)
    score = torch.tensor([-abs(len(x.edges) - len(x.nodes) - 1.0) for x in graphs])[:, None]
    noise = 0.1 * torch.randn(len(graphs), seeds, generator=g)
    return {"train": score + noise, "validation": score + noise.roll(1, 1)}


@pytest.fixture(scope="module")
def history():
    return evolve(GraphMachine(), wanted_edges, select="train", population=12, generations=4, max_applications=60_000)


def test_populations_grow_by_what_they_learn(history):
    assert len(history) == 4
    assert len(history[0].members) < len(history[-1].members) == 12
    assert set(history[-1].dsl.library) > set(history[1].dsl.library)
    machine = GraphMachine()
    for population in history:
        keys = [machine.key(m.output) for m in population.members]
        assert len(set(keys)) == len(keys)
        for m in population.members:
            assert machine.key(machine.output(machine.run(m.program))) == machine.key(m.output)


def test_costs_are_those_of_the_grammar(history):
    for population in history:
        for m in population.members:
            assert m.cost == pytest.approx(population.grammar.cost(m.program))


def test_without_abstractions_the_grammar_is_still_fitted():
    found = evolve(
        GraphMachine(),
        wanted_edges,
        select="train",
        population=4,
        generations=2,
        abstractions=0,
        max_applications=20_000,
    )
    assert found[0].grammar.weights == {}
    assert found[1].grammar.weights
    assert found[1].dsl.library == {}


def test_the_best_survive(history):
    for before, after in itertools.pairwise(history):
        best = before.scores["train"].mean(1).argsort(descending=True)[: max(2, round(len(before.members) / 2))]
        kept = {m.output.certificate for m in after.members}
        assert {before.members[i].output.certificate for i in best.tolist()} <= kept


def test_what_a_population_reports(history):
    last = history[-1]
    lines = last.table().splitlines()
    assert len(lines) == 13
    assert lines[0].split() == ["mass", "train", "validation", "program"]
    assert last.correlation("train", "validation") > 0.9
    assert last.components("train") == variance_components(last.scores["train"])
    sizes = torch.tensor([float(m.output.elements) for m in last.members])
    adjusted = last.components("validation", lambda graph: graph.elements)
    assert adjusted == variance_components(last.scores["validation"], sizes)
    with pytest.raises(InputError, match="no score 'test'; known are train, validation"):
        last.components("test")


def test_variances_of_a_known_layout():
    g = torch.Generator().manual_seed(1)
    a, b, e = (s * torch.randn(shape, generator=g) for s, shape in ((2, (400, 1)), (1, (1, 300)), (0.5, (400, 300))))
    found = variance_components(a + b + e)
    assert found.program == pytest.approx(4, rel=0.2)
    assert found.seed == pytest.approx(1, rel=0.2)
    assert found.residual == pytest.approx(0.25, rel=0.02)
    assert found.share == pytest.approx(4 / 5.25, rel=0.1)
    assert found.p < 1e-9


def test_f_values_by_hand():
    y = torch.tensor([[1.0, 2.0, 4.0], [2.0, 4.0, 5.0], [5.0, 5.0, 9.0], [4.0, 6.0, 6.0]])
    table = y.numpy().astype(float)
    rows, columns = table.mean(1), table.mean(0)
    rest = table - rows[:, None] - columns + table.mean()
    between = 3 * ((rows - table.mean()) ** 2).sum() / 3
    error = (rest**2).sum() / 6
    found = variance_components(y)
    assert found.f == pytest.approx(between / error)
    assert found.seed_f == pytest.approx(4 * ((columns - table.mean()) ** 2).sum() / 2 / error)
    size = torch.tensor([1.0, 2.0, 4.0, 3.0])
    line = np.polyval(np.polyfit(size.numpy(), rows, 1), size.numpy())
    adjusted = variance_components(y, size)
    assert adjusted.f == pytest.approx(3 * ((rows - line) ** 2).sum() / 2 / error)


def test_a_covariate_takes_what_it_explains():
    g = torch.Generator().manual_seed(2)
    size = torch.arange(20.0)
    scores = 0.1 * size[:, None] + 0.2 * torch.randn(20, 5, generator=g)
    assert variance_components(scores).p < 1e-6
    assert variance_components(scores, size).p > 0.01
    constant = variance_components(scores, torch.ones(20))
    assert constant == variance_components(scores)


def test_without_any_difference_the_test_is_calibrated():
    g = torch.Generator().manual_seed(3)
    p = [variance_components(torch.randn(8, 5, generator=g)).p for _ in range(400)]
    assert sum(v < 0.1 for v in p) / 400 == pytest.approx(0.1, abs=0.05)


def good(graphs, seeds):
    return {"train": torch.rand(len(graphs), seeds)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"population": 1}, "population must be"),
        ({"seeds": 1}, "seeds must be"),
        ({"generations": 0}, "generations must be"),
        ({"keep": 1.0}, "keep must be between 0 and 1"),
        ({"keep": 0}, "keep must be between 0 and 1"),
        ({"abstractions": -1}, "abstractions must be"),
        ({"select": "test"}, "with 'test' among them, got train"),
        ({"max_applications": 100}, "expected at least 2; raise max_applications"),
        ({"fit": lambda graphs, seeds: torch.zeros(len(graphs), seeds)}, "must return scores by name"),
        ({"fit": lambda graphs, seeds: {"train": torch.zeros(len(graphs))}}, "must be finite real numbers"),
        (
            {"fit": lambda graphs, seeds: {"train": torch.full((len(graphs), seeds), torch.nan)}},
            "must be finite real numbers",
        ),
    ],
)
def test_what_is_refused(change, words, unchecked):
    arguments = {"select": "train", "population": 3, "generations": 1, "max_applications": 20_000, "fit": good} | change
    with pytest.raises(InputError, match=words):
        evolve(GraphMachine(), arguments.pop("fit"), **arguments)


@pytest.mark.parametrize(
    ("scores", "covariate"),
    [
        (torch.rand(1, 5), None),
        (torch.rand(5, 1), None),
        (torch.rand(2, 5), torch.rand(2)),
        (torch.rand(5), None),
        (torch.full((3, 3), torch.nan), None),
        (torch.rand(4, 3), torch.rand(3)),
        (torch.rand(4, 3), torch.full((4,), torch.inf)),
        ([[1.0, 2.0], [2.0, 3.0]], None),
    ],
)
def test_layouts_that_are_refused(scores, covariate, unchecked):
    with pytest.raises(InputError):
        variance_components(scores, covariate)


def test_equal_scores_are_no_evidence():
    found = variance_components(torch.ones(20, 5))
    assert (found.p, found.seed_p, found.share) == (1.0, 1.0, 0.0)
    assert variance_components(torch.full((6, 3), 0.1)).p == 1.0
    exact = variance_components(torch.arange(5.0)[:, None].expand(5, 3))
    assert exact.p < 1e-9


def test_covariates_by_size_and_constants_by_rounding(unchecked):
    g = torch.Generator().manual_seed(0)
    y = torch.randn(12, 4, generator=g)
    assert variance_components(y, torch.full((12,), 0.1)) == variance_components(y)
    size = torch.arange(12) % 3
    stepped = y + 5 * (size > 1)[:, None]
    groups = torch.nn.functional.one_hot(size).double()
    assert variance_components(stepped, groups).f == pytest.approx(variance_components(y, groups).f)
    assert variance_components(stepped, size.double()).f > variance_components(stepped, groups).f
    far = variance_components(y, 1e11 + size.double())
    assert far.f == pytest.approx(variance_components(y, size.double()).f)
    with pytest.raises(InputError, match="leave differences"):
        variance_components(y[:3], torch.eye(3))
    with pytest.raises(InputError, match="must be numbers"):
        variance_components(y, "abc")


def test_what_was_dropped_does_not_come_back():
    seen = []

    def fit(graphs, seeds):
        seen.append({g.certificate for g in graphs})
        return wanted_edges(graphs, seeds)

    evolve(GraphMachine(), fit, select="train", population=8, generations=4, max_applications=40_000)
    for before, after, later in zip(seen, seen[1:], seen[2:], strict=False):
        assert not (before - after) & later


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_arity": "a"}, "max_arity must be"),
        ({"max_ratio": 0.5}, "max_ratio must be"),
        ({"max_applications": 0}, "max_applications must be"),
        ({"fit": 3}, "a function fit"),
        ({"select": 1, "fit": lambda graphs, seeds: {1: torch.rand(len(graphs), seeds)}}, "scores by name"),
        ({"fit": lambda graphs, seeds: {"train": [[1.0], [1.0, 2.0]]}}, "must be a tensor"),
        ({"fit": lambda graphs, seeds: {"train": torch.ones(len(graphs), seeds) * 1j}}, "finite real numbers"),
    ],
)
def test_more_that_is_refused(change, words, unchecked):
    arguments = {"select": "train", "population": 3, "generations": 1, "max_applications": 20_000, "fit": good} | change
    with pytest.raises(InputError, match=words):
        evolve(GraphMachine(), arguments.pop("fit"), **arguments)
    with pytest.raises(InputError, match="expected a Machine"):
        evolve(3, good, select="train")
