"""Distinction of rounding from broken laws, of rare breaks from none, and of vacuous laws from lawful ones."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.laws import (
    BatchIndependence,
    Equivariance,
    Euclidean,
    GradientEquivariance,
    GraphPermutation,
    Invariance,
    Orthogonal,
    Rotation,
    Scaling,
    SetPermutation,
    SignFlip,
    Translation,
    check,
)
from depth import some

PERMUTE = Invariance(SetPermutation())
X = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(1))
LINEAR = nn.Linear(3, 3)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def nothing(x):
    return (x - x.mean(1, keepdim=True)).sum(1)


class Centered(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x):
        return nothing(self.inner(x))


class TestRounding:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_noise_alone_is_vacuous(self, dtype):
        x = X.to(dtype)
        assert check(PERMUTE, nothing, x).status == "vacuous"
        assert check(PERMUTE, Centered().to(dtype), x).status == "vacuous"
        cross = check(Equivariance(Rotation()), lambda x: torch.linalg.cross(x, 2.3 * x), x)
        assert cross.status == "vacuous"

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("join", [lambda a, b: torch.cat([a, b], -1), lambda a, b: (a, b), lambda a, b: [b, a]])
    def test_noise_beside_a_live_part(self, dtype, join):
        x = X.to(dtype)
        assert check(PERMUTE, lambda x: join(nothing(x), x.sum(1)), x).passed
        report = check(PERMUTE, lambda x: join(nothing(x), x.sum(1) + 1e-2 * x[:, 0]), x)
        assert report.status == "broken"
        assert 1e-3 < report.worst < 1

    @pytest.mark.parametrize(
        "f",
        [
            lambda x: (3 * x.sum(1)).exp(),
            lambda x: torch.linalg.eigvalsh(x.mT @ x),
            lambda x: (1e6 * x.sum(1)).long(),
            lambda x: torch.linalg.det(x.mT @ x),
        ],
    )
    def test_ill_conditioned_functions_are_decided_in_float64(self, f, deep):
        for seed in range(3 if deep else 1):
            assert check(PERMUTE, f, X, generator=seeded(seed)).passed

    def test_what_does_not_run_in_float64_stays_open(self):
        assert check(PERMUTE, lambda x: (1e5 * LINEAR(x.float()).sum(1)).sin(), X).status == "unresolved"
        report = check(PERMUTE, lambda x: LINEAR(x.float()).square().sum(1).double(), X.double())
        assert report.status == "unresolved"
        assert "float64 throughout" in report.sentence

    def test_modules_that_a_function_refers_to_are_taken_to_float64(self):
        local = nn.Linear(3, 3)
        assert check(PERMUTE, lambda x: (1e5 * LINEAR(x).sum(1)).sin(), X).passed
        assert check(PERMUTE, lambda x: (1e5 * local(x).sum(1)).sin(), X).passed
        assert check(PERMUTE, lambda x: nothing(local(x)), X).status == "vacuous"
        assert local.weight.dtype == LINEAR.weight.dtype == torch.float32

    def test_breaks_are_not_excused(self):
        assert check(PERMUTE, lambda x: LINEAR(x)[:, 0], X).status == "broken"
        assert check(PERMUTE, lambda x: (LINEAR(x)[:, 0] > 0).float(), X).status == "broken"
        assert check(PERMUTE, lambda x: (3 * x.sum(1)).exp() * (1 + 0.1 * x[:, 0]), X).status == "broken"
        only_float32 = lambda x: x.sum(1) + (1e-3 * x[:, 0] if x.dtype == torch.float32 else 0)  # noqa: E731
        assert check(PERMUTE, only_float32, X).status == "broken"
        assert check(PERMUTE, lambda x: (10 * x[:, 0]).floor(), X).status == "broken"

    def test_an_unresolved_channel_does_not_excuse_another(self):
        f = lambda x: torch.cat([x.sum(1) + 1e6, x.sum(1) + 1e-3 * x[:, 0]], -1)  # noqa: E731
        assert check(PERMUTE, f, X).status == "broken"

    def test_variation_that_rounding_hides_is_not_called_constant(self):
        assert check(PERMUTE, lambda x: x.sum(1) + 1e9, X).status == "unresolved"
        assert check(PERMUTE, lambda x: 0 * x.sum(1) + 0.3, X).status == "vacuous"


class TestExploration:
    SHIFTED = X + 0.5

    @pytest.mark.parametrize("seed", some(range(4)))
    def test_breaks_at_other_signs_sums_and_scales(self, seed):
        start, size = self.SHIFTED, X.abs().mean()
        negative = lambda x, bad: torch.where(x.sum() < 0, bad, x.sum(1))  # noqa: E731
        assert (
            check(PERMUTE, lambda x: negative(x, torch.tensor(torch.nan)), start, generator=seeded(seed)).status
            == "broken"
        )
        assert check(PERMUTE, lambda x: negative(x, x[:, 0]), start, generator=seeded(seed)).status == "broken"
        assert check(PERMUTE, lambda x: negative(-x, x[:, 0]), -start, generator=seeded(seed)).status == "broken"
        large = lambda x: torch.where(x.abs().mean() > 2 * size, x[:, 0], x.sum(1))  # noqa: E731
        small = lambda x: torch.where(x.abs().mean() < size / 2, x[:, 0], x.sum(1))  # noqa: E731
        assert check(PERMUTE, large, X, generator=seeded(seed)).status == "broken"
        assert check(PERMUTE, small, X, generator=seeded(seed)).status == "broken"

    def test_what_the_example_shows_to_be_valid_is_kept(self):
        assert check(PERMUTE, lambda x: x.log().sum(1), X.abs() + 0.1).passed
        assert check(PERMUTE, lambda x: x.clamp(-2, 2).acos().sum(1), X.tanh()).passed
        assert check(PERMUTE, lambda i: nn.functional.one_hot(i, 9).sum(1), torch.randint(0, 9, (3, 5))).passed

    def test_a_function_that_refuses_other_inputs_is_judged_on_the_example(self):
        def rising(x):
            if x[0, 0, 0] > x[0, 1, 0]:
                raise ValueError("not sorted")
            return x.sum(1)

        report = check(PERMUTE, rising, X.sort(1).values)
        assert report.status == "broken"
        assert "raised ValueError: not sorted" in report.sentence


class TestVacuity:
    def test_the_neutral_element_is_not_drawn_by_chance(self):
        two = torch.randn(3, 2, 2)
        assert all(
            check(PERMUTE, lambda x: x.sum(1), two, trials=1, generator=seeded(seed)).passed for seed in range(12)
        )
        one = torch.randn(5, 1)
        assert all(
            check(Invariance(SignFlip(1)), torch.abs, one, trials=1, generator=seeded(seed)).passed
            for seed in range(12)
        )

    def test_functions_of_the_edges_alone(self):
        edges = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
        degree = lambda x, e: torch.zeros(len(x)).index_add(0, e[0], torch.ones(e.shape[1]))  # noqa: E731
        loops = lambda x, e: (e[0] == e[1]).sum()  # noqa: E731
        assert check(Equivariance(GraphPermutation()), degree, (torch.randn(4, 3), edges)).passed
        assert check(Invariance(GraphPermutation()), loops, (torch.randn(4, 3), edges)).passed

    def test_a_sampler_that_returns_the_same_values(self):
        assert check(PERMUTE, lambda x: x.sum(1), lambda g: X.clone()).passed

    def test_functions_that_vary_far_away_alone(self):
        assert check(PERMUTE, lambda x: (x.sum(1) - 40).relu(), X).passed

    def test_the_gradient_of_a_linear_function_is_constant_and_not_vacuous(self):
        law = GradientEquivariance(SetPermutation())
        assert check(law, lambda x: x.sum(1), X).passed
        assert check(law, lambda x: 0 * x.sum(1), X).status == "vacuous"
        assert check(law, lambda x: x[:, 0], X).status == "broken"

    def test_an_example_with_one_id_is_refused(self):
        with pytest.raises(InputError, match="all integers of the example are equal"):
            check(PERMUTE, lambda i: i.sum(1), torch.zeros(3, 4, dtype=torch.int64))


class TestWitness:
    POINTS = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(3))

    @pytest.mark.parametrize(
        ("action", "f"),
        [
            (Rotation(), lambda x: x[..., 0].abs().sum(1)),
            (Orthogonal(), lambda x: x[..., 0].abs().sum(1)),
            (Euclidean(), lambda x: x[..., 0].abs().sum(1)),
            (Scaling(), lambda x: x.norm(dim=-1).sum(1)),
            (Translation(), lambda x: x.norm(dim=-1).sum(1)),
            (SignFlip(), lambda x: x.sum(1)),
        ],
        ids=["rotation", "orthogonal", "euclidean", "scaling", "translation", "sign-flip"],
    )
    def test_one_point_and_a_difference_that_a_person_sees(self, action, f):
        report = check(Invariance(action), f, self.POINTS)
        x, (left, right) = report.witness.x, report.witness.sides
        assert x.shape == (1, 1, 3)
        assert report.witness.comparison.relative > 0.1
        assert float((left - right).abs().max() / left.abs().max()) > 0.1
        assert "too large" not in report.witness.code

    def test_rotations_are_quarter_turns_where_these_break_the_law(self):
        report = check(Invariance(Rotation()), lambda x: x[..., 0].abs().sum(1), self.POINTS)
        assert "rotation by 90 degrees" in report.witness.code or "rotation by 180 degrees" in report.witness.code

    def test_one_point_of_a_fixed_number_is_left(self):
        law = Equivariance(Rotation())
        bad = lambda x: x + 0.5 * (torch.arange(20) == 3)[:, None] * x.abs()  # noqa: E731
        x = check(law, bad, self.POINTS).witness.x
        assert int((x != 0).any(-1).sum()) == 1


def test_random_numbers_of_numpy_and_python_are_frozen(unchecked):
    import random

    import numpy as np

    state = np.random.get_state()[1].copy(), random.getstate()
    noisy = lambda x: x.sum(1) + float(np.random.rand()) + random.random()  # noqa: E731
    assert check(PERMUTE, noisy, X).passed
    assert (np.random.get_state()[1] == state[0]).all()
    assert random.getstate() == state[1]


def test_batch_leaks_of_methods_are_found_and_buffers_restored():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def encode(self, x):
            return self.norm(x)

    net = Net()
    assert check(BatchIndependence(), net.encode, torch.randn(8, 3)).status == "broken"
    assert not net.norm.running_mean.any()
