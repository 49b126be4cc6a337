"""Patterns of shared weights, their machine, layers, and the search for the symmetry of data."""

import itertools
import pickle

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import equivariant_basis, permutation_matrix
from commutant.laws import Equivariance, check
from commutant.programs import (
    EquivarianceScore,
    Grammar,
    LinearTieScore,
    TiedLinear,
    TieMachine,
    TiePattern,
    search_states,
    search_ties,
)

CYCLIC = "(rotate (tie identity))"
DIHEDRAL = "(rotate (tie (reverse (tie identity))))"
SYMMETRIC = "(rotate (tie (swap (tie identity))))"
TORUS = "(split (rotate (tie (stride (split (rotate (tie identity)))))))"


def made(n, program):
    machine = TieMachine(n)
    return machine.output(machine.run(program))


def generated(generators, n):
    """Return all elements of a group of permutations."""
    found = {tuple(range(n))}
    new = set(found)
    while new:
        new = {tuple(g[i] for i in h) for g in generators for h in new} - found
        found |= new
    return found


@pytest.mark.parametrize("program", ["identity", CYCLIC, DIHEDRAL, SYMMETRIC, TORUS, "(single (swap (tie identity)))"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_labels_are_the_orbits_of_the_group(n, program):
    """Slow reference: the whole group acts on pairs of points."""
    pattern = made(n, program)
    group = generated(pattern.generators, n)
    orbits = {frozenset((g[i], g[j]) for g in group) for i in range(n) for j in range(n)}
    assert pattern.classes == len(orbits)
    for orbit in orbits:
        assert len({int(pattern.labels[i, j]) for i, j in orbit}) == 1


@pytest.mark.parametrize(("n", "program"), [(5, CYCLIC), (6, DIHEDRAL), (5, SYMMETRIC), (8, TORUS), (4, "identity")])
def test_the_pattern_is_the_commutant(n, program):
    """The dimension is that of the null space of WP = PW over the generators, and each class solves the equations."""
    pattern = made(n, program)
    eye = torch.eye(n, dtype=torch.float64)
    matrices = [permutation_matrix(torch.tensor(g)).double() for g in pattern.generators]
    equations = [torch.kron(p.contiguous(), eye) - torch.kron(eye, p.mT.contiguous()) for p in matrices]
    rank = int(torch.linalg.matrix_rank(torch.cat(equations))) if equations else 0
    assert pattern.classes == n**2 - rank
    for k in range(pattern.classes):
        weight = (pattern.labels == k).double()
        for p in matrices:
            assert torch.equal(p @ weight, weight @ p)


def test_known_groups():
    n = 6
    roll = (torch.arange(n)[None] - torch.arange(n)[:, None]) % n
    assert torch.equal(made(n, CYCLIC).labels, roll)
    assert made(n, DIHEDRAL).classes == n // 2 + 1
    sets = made(n, SYMMETRIC)
    assert sets.classes == len(equivariant_basis(1, 1)) == 2
    assert torch.equal(sets.labels == 0, torch.eye(n, dtype=torch.bool))
    assert made(8, TORUS).classes == 8
    assert made(8, TORUS) != made(8, CYCLIC)
    assert made(n, "identity").classes == n * n
    assert made(n, "(single (split (rotate (tie identity))))").point_labels.tolist() == [0, 0, 0, 1, 2, 3]


def test_equal_patterns_are_equal_whatever_the_generators():
    one = TiePattern(4, [(1, 2, 3, 0), (1, 0, 2, 3)])
    other = TiePattern(4, [(1, 0, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2)])
    assert one == other == made(4, SYMMETRIC)
    assert len({one, other}) == 1
    assert one.with_generator((3, 2, 1, 0)) == one


def test_views_move_the_right_points():
    machine = TieMachine(6)
    state = machine.run("(split (rotate identity))")
    assert state.block == 3
    assert state.permutation == (1, 2, 0, 4, 5, 3)
    assert machine.run("(split (stride (rotate identity)))").permutation == (2, 3, 4, 5, 0, 1)
    assert machine.run("(split (single (reverse identity)))").permutation == (2, 1, 0, 3, 4, 5)
    assert machine.run("(split (split (swap identity)))").permutation == (1, 0, 3, 2, 5, 4)
    assert machine.run("(split (split (split identity)))").block == 6
    twice = machine.run("(rotate (reverse identity))").permutation
    first, second = (machine.run(f"({name} identity)").permutation for name in ("rotate", "reverse"))
    assert twice == tuple(first[i] for i in second)
    func = machine.run("(rotate (func (reverse (tie identity)) (tie identity)))")
    assert func.pattern.generators == ((0, 5, 4, 3, 2, 1), (1, 2, 3, 4, 5, 0))


@pytest.mark.parametrize("program", ["identity", CYCLIC, DIHEDRAL, SYMMETRIC, TORUS])
def test_the_layer_is_the_most_general_equivariant_one(program):
    pattern = made(8, program)
    layer = TiedLinear(pattern, 3, 2).double()
    x = torch.randn(4, 8, 3, dtype=torch.float64)
    report = check(Equivariance(pattern.action()), layer, x)
    assert report.passed or not pattern.generators
    full = layer.weight[layer.labels]
    wanted = torch.einsum("ijoc,bjc->bio", full, x) + layer.bias[layer.point_labels]
    torch.testing.assert_close(layer(x), wanted)
    assert layer.weight.shape == (pattern.classes, 2, 3)


def test_the_layer_is_a_convolution():
    pattern = made(8, CYCLIC)
    layer, conv = (
        TiedLinear(pattern, 2, 5).double(),
        nn.Conv1d(2, 5, 8, padding="same", padding_mode="circular").double(),
    )
    with torch.no_grad():
        for k in range(8):  # class k is the weight of the point k to the right; tap t of the kernel is 3 to the left
            conv.weight[:, :, (k + 3) % 8] = layer.weight[k]
        conv.bias.copy_(layer.bias[0])
    x = torch.randn(3, 8, 2, dtype=torch.float64)
    torch.testing.assert_close(layer(x), conv(x.mT).mT)


def test_the_layer_lives_like_any_module(unchecked):
    layer = TiedLinear(made(4, CYCLIC), 2, 3, bias=False)
    twin = TiedLinear(made(4, CYCLIC), 2, 3, bias=False)
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(5, 2, 4, 2)
    assert torch.equal(layer(x), twin(x))
    assert torch.autograd.gradcheck(twin.double(), torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True))
    with pytest.raises(InputError, match=r"x must be \(\*batch, 4, 2\), got \(5, 4\)"):
        layer(torch.randn(5, 4))
    with pytest.raises(InputError, match="pattern must be a TiePattern"):
        TiedLinear(torch.zeros(4, 4), 2, 3)
    with pytest.raises(InputError, match=r"x is torch\.float64"):
        layer(x.double())


@pytest.mark.parametrize(
    ("n", "program", "noise"), [(6, CYCLIC, 0.0), (6, SYMMETRIC, 0.1), (8, TORUS, 0.1), (6, "identity", 0.05)]
)
def test_a_planted_symmetry_is_found(n, program, noise):
    g = torch.Generator().manual_seed(3)
    pattern = made(n, program)
    weight = torch.randn(pattern.classes, generator=g)[pattern.labels]
    x = torch.randn(60, n, generator=g)
    y = x @ weight.T + 2
    y = y + noise * y.std() * torch.randn(60, n, generator=g)
    result = search_ties(LinearTieScore(x, y), n, max_cost=7 if n == 8 else 5)
    assert result.chosen.pattern == pattern
    assert "*" in result.table()
    layer = TiedLinear(result.chosen.pattern, 1, 1)
    if pattern.generators:
        assert check(Equivariance(result.chosen.pattern.action()), layer, torch.randn(3, n, 1)).passed


def test_channels_and_biases_are_fitted():
    g = torch.Generator().manual_seed(0)
    pattern = made(5, CYCLIC)
    layer = TiedLinear(pattern, 2, 3)
    with torch.no_grad():
        layer.bias.fill_(4.0)
        x = torch.randn(80, 5, 2, generator=g)
        y = layer(x)
    score = LinearTieScore(x, y)
    assert max(score(pattern)) < 1e-9
    assert max(score(made(5, "identity"))) < 1e-9
    assert min(score(made(5, SYMMETRIC))) > 0.01


def test_the_error_is_that_of_least_squares_on_the_rest():
    """Slow reference: explicit features and `lstsq` on the samples themselves."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(24, 4, generator=g).double(), torch.randn(24, 4, generator=g).double()
    pattern = made(4, DIHEDRAL)
    chosen = nn.functional.one_hot(pattern.labels).double()
    features = torch.cat([torch.einsum("ijk,sj->sik", chosen, x), torch.ones(24, 4, 1).double()], 2)
    found = LinearTieScore(x, y, folds=4)(pattern)
    for k in range(4):
        held = torch.arange(24) % 4 == k
        fit = torch.linalg.lstsq(features[~held].flatten(0, 1), y[~held].flatten()[:, None]).solution
        error = (features[held].flatten(0, 1) @ fit - y[held].flatten()[:, None]).square().mean()
        assert found[k] == pytest.approx(float(error / y.var(correction=0)), rel=1e-9)


def test_the_symmetry_of_a_function_is_found():
    torch.manual_seed(0)
    net = nn.Sequential(TiedLinear(made(6, DIHEDRAL), 2, 4), nn.Tanh(), TiedLinear(made(6, DIHEDRAL), 4, 1))
    result = search_ties(EquivarianceScore(net, torch.randn(5, 6, 2)), 6, max_cost=5)
    assert result.chosen.pattern == made(6, DIHEDRAL)
    assert result.chosen.error < 1e-10
    sets = search_ties(EquivarianceScore(lambda x: x - x.mean(1, keepdim=True), torch.randn(5, 6, 2)), 6, max_cost=5)
    assert sets.chosen.pattern == made(6, SYMMETRIC)
    nothing = search_ties(EquivarianceScore(nn.Sequential(nn.Linear(6, 6)), torch.randn(2, 6)), 6, max_cost=4)
    assert nothing.chosen.pattern.classes == 36


def test_a_search_can_use_a_grammar_and_its_own_score():
    grammar = Grammar(TieMachine(4).dsl, {"rotate": 5.0, "tie": 5.0})
    wanted = made(4, CYCLIC)
    result = search_ties(lambda p: [float(p != wanted)] * 3, 4, grammar=grammar, max_cost=8.0)
    assert result.chosen.pattern == wanted
    assert len({h.pattern for h in result.hypotheses}) == len(result.hypotheses)


def test_patterns_of_four_points_by_mass():
    found = list(search_states(TieMachine(4), max_cost=8))
    assert len({f.output for f in found}) == len(found)
    for f in itertools.islice(found, 40):
        assert TieMachine(4).run(f.program).pattern == f.output


X, Y = torch.randn(9, 4), torch.randn(9, 4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TieMachine(0), "n must be a whole number of at least 1"),
        (lambda: TiePattern(3, [(0, 1)]), "must be a permutation of 0 .. 2"),
        (lambda: TiePattern(3, [(0, 1, 1)]), "must be a permutation of 0 .. 2"),
        (lambda: TiePattern(3, [3]), "must be a permutation of 0 .. 2"),
        (lambda: LinearTieScore(X, Y[:8]), r"got \(9, 4\) and \(8, 4\)"),
        (lambda: LinearTieScore(X[0], Y[0]), "samples, n"),
        (lambda: LinearTieScore(X.long(), Y), "x must be floating point"),
        (lambda: LinearTieScore(X / 0, Y), "must be finite"),
        (lambda: LinearTieScore(X, Y * 0), "y must vary"),
        (lambda: LinearTieScore(X, Y, folds=3), "folds must be a whole number of at least 4"),
        (lambda: LinearTieScore(X[:5], Y[:5]), "one sample for each of 8 folds, got 5"),
        (lambda: LinearTieScore(X, Y)(TiePattern(3)), "the pattern has 3 points, the data 4"),
        (lambda: EquivarianceScore(lambda x: x.sum(1), torch.randn(2, 4, 3)), "must return"),
        (lambda: EquivarianceScore(lambda x: x / 0, X), "must return finite floating-point values"),
        (lambda: search_ties(lambda p: [float("nan")], 3), "finite errors"),
        (lambda: search_ties(lambda p: [0.0] * p.classes, 3), "each of 9 folds"),
        (lambda: search_ties(lambda p: 1.0, 3), "must return a sequence"),
        (lambda: search_ties(lambda p: [], 3), "finite errors"),
        (lambda: search_ties(lambda p: [0.0], 3, max_cost=0), "no program is within the limits"),
        (lambda: search_ties(lambda p: [0.0], 3, tolerance=-1), "tolerance must be"),
        (lambda: search_ties(LinearTieScore(X, Y), 3), "the pattern has 3 points, the data 4"),
    ],
)
def test_what_is_refused(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()


def shifted(n=6, samples=40, seed=0):
    x = torch.randn(samples, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, x - 0.5 * x.roll(1, 1)


@pytest.mark.parametrize(
    ("scale", "offset", "out_scale", "out_offset"),
    [(1e-9, 0, 1, 0), (1e9, 0, 1, 0), (1, 1e8, 1, 0), (1, 0, 1e-7, 0), (1, 0, 1, 1e9), (1e160, 0, 1e-160, 0)],
)
def test_units_and_offsets_do_not_matter(scale, offset, out_scale, out_offset):
    x, y = shifted()
    result = search_ties(LinearTieScore(scale * x + offset, out_scale * y + out_offset), 6, max_cost=5, tolerance=1e-6)
    assert result.chosen.pattern == made(6, CYCLIC)
    assert result.chosen.error < 1e-6


def test_an_unsymmetric_map_with_an_offset_has_no_symmetry():
    x, _ = shifted()
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert (
        search_ties(LinearTieScore(x, x @ weight.T + 1e9), 6, max_cost=4, tolerance=1e-6).chosen.pattern.classes == 36
    )


def test_no_channel_hides_another():
    x, y = shifted()
    both = torch.stack([1e6 * y, x * torch.arange(6.0, dtype=torch.float64)], -1)
    assert search_ties(LinearTieScore(x, both), 6, max_cost=4).chosen.pattern.classes > 6
    score = EquivarianceScore(lambda x: torch.stack([1e6 * x, x * torch.arange(6.0)], -1), torch.randn(5, 6))
    assert search_ties(score, 6, max_cost=4).chosen.pattern.classes == 36
    constant = EquivarianceScore(lambda x: torch.stack([0 * x + 1e6, x * torch.arange(6.0)], -1), torch.randn(5, 6))
    assert search_ties(constant, 6, max_cost=4).chosen.pattern.classes == 36
    fixed = EquivarianceScore(lambda x: 0 * x + torch.arange(6.0), torch.randn(5, 6))  # varies over points alone
    assert search_ties(fixed, 6, max_cost=4).chosen.pattern.classes == 36


def test_functions_that_change_their_input_or_are_complex():
    def clipped(x):
        x[x < 0] = torch.arange(6.0).expand_as(x)[x < 0]
        return x

    x = torch.randn(8, 6)
    before = x.clone()
    assert search_ties(EquivarianceScore(clipped, x), 6, max_cost=4).chosen.pattern.classes == 36
    assert torch.equal(x, before)
    turned = EquivarianceScore(lambda x: 1j * x * torch.arange(6.0), x)
    assert search_ties(turned, 6, max_cost=4).chosen.pattern.classes == 36


def test_a_layer_refuses_the_checkpoint_of_another_pattern():
    layer, other = (TiedLinear(TiePattern(4, [g]), 1, 1) for g in ((1, 0, 2, 3), (0, 1, 3, 2)))
    with pytest.raises(RuntimeError, match="the checkpoint is of another pattern"):
        other.load_state_dict(layer.state_dict())


def test_machines_and_searches_can_be_pickled():
    machine = TieMachine(4)
    found = list(search_states(machine, max_cost=4))
    twin, copies = pickle.loads(pickle.dumps((machine, found)))
    assert [f.output for f in copies] == [f.output for f in found]
    assert twin.run(copies[-1].program).pattern == found[-1].output


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EquivarianceScore(torch.relu, X)(TiePattern(3)), "the pattern has 3 points, the inputs 4"),
        (lambda: EquivarianceScore(torch.relu, X[0]), "x must be"),
        (lambda: EquivarianceScore(lambda x: x > 0, X), "floating-point values, got torch.bool"),
        (lambda: EquivarianceScore(lambda x: x + torch.randn(9, 4), X), "must be deterministic"),
        (lambda: EquivarianceScore(nn.Sequential(nn.Dropout(0.1)), X), "training mode"),
        (lambda: EquivarianceScore(nn.Sequential(nn.BatchNorm1d(4)), X), "training mode"),
        (lambda: LinearTieScore(X, torch.full((9, 4), 0.1)), "y must vary"),
        (lambda: LinearTieScore(X[..., None][..., :0], Y), "points and channels"),
        (lambda: LinearTieScore(X[:, :0], Y[:, :0]), "points and channels"),
        (lambda: TiePattern(3, None), "generators must be a list"),
        (lambda: TiePattern(3, [(0, 1, float("inf"))]), "must be a permutation"),
        (lambda: search_ties(lambda p: [None], 3), "sequence of real errors"),
        (lambda: search_ties(lambda p: [1j], 3), "sequence of real errors"),
        (lambda: search_ties(lambda p: "123", 3), "sequence of real errors"),
        (lambda: search_ties(3, 3), "score must be a function"),
        (lambda: search_ties(lambda p: [0.0], 3, max_cost=3).table(0), "rows must be"),
        (lambda: search_ties(lambda p: [0.0], 3, grammar=3), "grammar must be"),
    ],
)
def test_more_that_is_refused(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()


def test_data_that_cannot_tell_a_symmetry_is_refused():
    def function(x):
        return x * x.roll(1, 1)  # commutes with rotations only

    for x, message in (
        (torch.eye(6), "returns one constant for all inputs"),
        (torch.zeros(3, 6), "returns one constant for all inputs"),
        (torch.randn(5, 1).expand(5, 6), "the inputs do not change under"),
    ):
        with pytest.raises(InputError, match=message):
            search_ties(EquivarianceScore(function, x), 6, max_cost=5)
    with pytest.raises(InputError, match="x must vary"):
        LinearTieScore(torch.ones(20, 4), torch.randn(20, 4))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("given", [(1.5, 2.2, 0.1), (1.0, 2.0, 0.0), "120"])
def test_generators_are_whole_numbers(given):
    with pytest.raises(InputError, match=r"must be a permutation of 0 \.\. 2"):
        TiePattern(3, [given])
    assert TiePattern(3, [torch.tensor([1, 2, 0])]) == TiePattern(3, [(1, 2, 0)])
