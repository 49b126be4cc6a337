"""Steps that a parallel solver cannot run are refused by every method; other steps are solved."""

import numpy
import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.sequences import check_parallel, jacobian_structure, lyapunov_exponent, parallel_rnn, solve_recurrence
from depth import some

W = 0.3 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


class Cell(nn.Module):
    """Cell whose next state is tanh(h / 2 + f(self, x, h))."""

    hidden_size, calls = 4, 0

    def __init__(self, f=None):
        super().__init__()
        self.weight, self.f = nn.Parameter(W.clone()), f
        self.norm, self.generator = nn.BatchNorm1d(4), torch.Generator().manual_seed(0)
        self.count, self.previous, self.seen = 0, None, []
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x, h):
        return torch.tanh(0.5 * h + self.f(self, x, h))


def previous(cell, x, h):
    last = torch.zeros_like(x) if cell.previous is None or cell.previous.shape != x.shape else cell.previous
    cell.previous = x.detach()
    return x - last


def count(cell, x, h):
    cell.count += 1
    return x * (2 if cell.count > 50 else 1)


def count_of_class(cell, x, h):
    type(cell).calls += 1
    return x * (2 if type(cell).calls > 50 else 1)


def count_in_a_buffer(cell, x, h):
    cell.steps += 1
    return x / cell.steps


def listed(cell, x, h):
    cell.seen.append(x.mean())
    return x + (cell.seen[-20] if len(cell.seen) > 20 else 0)


def seeded(cell, x, h):
    torch.manual_seed(0)
    return x + 0.1 * torch.randn_like(x)


def latch(cell, x, h):
    cell.count = cell.count or int((x > 3).any())
    return x * (1 + cell.count)


def prepared_by_the_data(cell, x, h):
    if not cell.steps:
        cell.steps = x.detach().std()
    return x / cell.steps


REMEMBERS = {
    "latch": (latch, "the attribute 'count' of Cell"),
    "prepared by the data": (prepared_by_the_data, "the attribute 'steps' of Cell"),
    "previous": (previous, "two calls on the same rows"),
    "count": (count, "the attribute 'count' of Cell"),
    "count of class": (count_of_class, "the attribute 'calls' of Cell"),
    "count in a buffer": (count_in_a_buffer, "the attribute 'steps' of Cell"),
    "list": (listed, "the attribute 'seen' of Cell"),
    "batch norm": (lambda c, x, h: c.norm(x), "of BatchNorm1d"),
    "dropout": (lambda c, x, h: nn.functional.dropout(x, 0.5), "draws random numbers"),
    "rand": (lambda c, x, h: x + 1e-3 * torch.rand(()), "draws random numbers"),
    "numpy": (lambda c, x, h: x + numpy.random.rand(), "draws random numbers"),
    "generator": (lambda c, x, h: x + torch.rand(4, generator=c.generator), "the attribute 'generator' of Cell"),
    "seeded": (seeded, "depends on its position"),
    "writes x": (lambda c, x, h: x.mul_(0.5), "changed the given input in place"),
    "writes x.data": (lambda c, x, h: x.data.mul_(0.5), "changed the given input in place"),
    "writes h": (lambda c, x, h: x + h.mul_(0.5), "changed the given state in place"),
}
COUPLES = {
    "mean": lambda c, x, h: x - x.mean(0),
    "mean of h": lambda c, x, h: x - h.mean(0),
    "weakly": lambda c, x, h: x + 1e-4 * x.mean(0),
    "statistics": lambda c, x, h: nn.functional.batch_norm(x, None, None, training=True),
    "sort": lambda c, x, h: x.sort(0).values,
    "softmax": lambda c, x, h: x * x.softmax(0),
    "attention": lambda c, x, h: (x @ x.mT).softmax(-1) @ x,
    "cumsum": lambda c, x, h: 0.1 * x.cumsum(0),
    "first row": lambda c, x, h: x - 0.1 * x[:1],
    "last row": lambda c, x, h: x - 0.1 * x[-1:],
    "neighbor": lambda c, x, h: x.roll(1, 0),
    "number of rows": lambda c, x, h: x / len(x),
    "place": lambda c, x, h: x + 0.01 * torch.arange(len(x))[:, None],
    "norm by the largest": lambda c, x, h: x / x.abs().max().clamp(min=3),
    "large input": lambda c, x, h: x - x.mean(0) if x.abs().max() > 3 else x,
    "large entries": lambda c, x, h: torch.where(x.abs() > 3, x - x.mean(0), x),
}
FINE = {
    "elementwise": lambda c, x, h: x * c.weight[0],
    "dense": lambda c, x, h: h @ c.weight + x,
    "layer norm": lambda c, x, h: nn.functional.layer_norm(h @ c.weight, (4,)) + x,
    "batch norm": lambda c, x, h: c.norm(x),
    "threshold": lambda c, x, h: (h @ c.weight + x > 0.3).float() + x,
    "steep": lambda c, x, h: torch.sin(50 * h @ c.weight + x),
    "keeps its last input to look at": lambda c, x, h: setattr(c, "previous", x) or x,
}


def inputs(length=40):
    x = torch.randn(3, length, 4, generator=torch.Generator().manual_seed(1)).clamp(-2.5, 2.5)
    x[1, length // 3, 2] = 7.0  # the only large entry
    return x


@pytest.mark.parametrize("method", some(["auto", "sequential", "loop"]))
@pytest.mark.parametrize("name", REMEMBERS)
def test_a_cell_that_remembers_or_draws_is_refused(name, method):
    f, said = REMEMBERS[name]
    with pytest.raises(InputError, match=said):
        parallel_rnn(Cell(f), method=method)(inputs())


@pytest.mark.parametrize("method", some(["auto", "sequential", "loop"]))
@pytest.mark.parametrize("name", COUPLES)
def test_a_cell_that_couples_rows_is_refused(name, method):
    with pytest.raises(InputError, match="a row of the step"):
        parallel_rnn(Cell(COUPLES[name]), method=method)(inputs())


@pytest.mark.parametrize("name", FINE)
def test_a_cell_whose_rows_are_alone_is_solved(name):
    rnn, x = parallel_rnn(Cell(FINE[name]).eval()), inputs(300)
    found = rnn(x)[0]
    rnn.method = "loop"
    expected = rnn(x)[0]
    assert (found - expected).abs().mean() < 1e-5  # rounding may cross a threshold once
    torch.testing.assert_close(found[1:2], rnn(x[1:2])[0], atol=0.02, rtol=0)


@pytest.mark.parametrize("method", ["auto", "sequential", "multishoot", "newton"])
@pytest.mark.parametrize("dtype", some([torch.float32, torch.float64, torch.bfloat16]))
def test_coupling_of_rare_states_is_found_along_the_trajectory(method, dtype):
    step = lambda h, x: 0.9 * h + torch.where(h.abs() > 4, x - x.mean(0), x)  # noqa: E731
    x = torch.ones(3, 300, 4, dtype=dtype) * torch.tensor([0.2, 0.3, 0.44], dtype=dtype)[:, None, None]
    h_0 = torch.zeros(3, 4, dtype=dtype)
    solve_recurrence(step, x[:, :9], h_0, method=method)
    with pytest.raises(InputError, match="a row of the step changes when other rows change"):
        solve_recurrence(step, x, h_0, method=method)


def test_steps_with_state_around_them_are_refused():
    x, h_0, outside = inputs(), torch.zeros(3, 4), {"n": 0}

    def step(h, x):
        outside["n"] += 1
        return torch.tanh(0.5 * h + x * (1 if outside["n"] < 90 else 2))

    with pytest.raises(InputError, match="outside"):
        solve_recurrence(step, x, h_0)
    context = torch.randn(3, 4)
    with pytest.raises(InputError, match=r"runs on the 3 rows of the batch but not on .* through x"):
        solve_recurrence(lambda h, x: torch.tanh(h + x + context), x, h_0)
    with pytest.raises(ZeroDivisionError):  # the step's own error
        solve_recurrence(lambda h, x: h / (1 // 0), x, h_0)
    given = x.clone()
    with pytest.raises(InputError, match="in place"):
        solve_recurrence(lambda h, x: torch.tanh(0.5 * h + x.data.mul_(2)), x, h_0)
    assert torch.equal(x, given)


def test_whatever_takes_a_cell_looks_at_it():
    coupled, x = Cell(COUPLES["mean of h"]), inputs()
    for call in (
        lambda: check_parallel(parallel_rnn(coupled), x),
        lambda: lyapunov_exponent(parallel_rnn(coupled), x),
        lambda: jacobian_structure(lambda h, x: coupled(x, h), torch.zeros(3, 4), x[:, 0]),
    ):
        with pytest.raises(InputError, match="a row of the step"):
            call()
    cell = Cell(lambda c, x, h: nn.functional.dropout(x, 0.5, c.training))
    assert check_parallel(parallel_rnn(cell), x).agrees  # the check runs in eval()
    with pytest.raises(InputError, match="random"):
        parallel_rnn(cell)(x)


def test_a_gradient_that_would_be_lost_is_refused():
    w = torch.full((4,), 0.5, requires_grad=True)
    step = lambda h, x: torch.tanh(w * h + x)  # noqa: E731
    x, h_0 = inputs(), torch.zeros(3, 4)
    with pytest.raises(InputError, match="not among params"):
        solve_recurrence(step, x, h_0)
    with torch.no_grad():
        solve_recurrence(step, x, h_0)
    solve_recurrence(step, x, h_0, method="loop")[0].sum().backward()
    expected, w.grad = w.grad, None
    solve_recurrence(lambda h, x, w: torch.tanh(w * h + x), x, h_0, params=(w,))[0].sum().backward()
    torch.testing.assert_close(w.grad, expected)


def test_a_cache_that_the_first_call_fills_is_no_memory():
    def step(h, x):
        if "eye" not in cache:
            cache["eye"] = torch.eye(4)
        return torch.tanh(0.5 * h @ cache["eye"] + x)

    cache = {}
    assert solve_recurrence(step, inputs(), torch.zeros(3, 4))[1].converged


def test_a_cell_with_a_hook_that_records_is_solved():
    cell, seen = nn.GRUCell(4, 4), []
    x, expected = inputs(), parallel_rnn(cell)(inputs())[0]
    cell.register_forward_hook(lambda module, given, out: seen.append(out))
    torch.testing.assert_close(parallel_rnn(cell)(x)[0], expected)


@pytest.mark.parametrize("cell", [nn.GRUCell(4, 4), Cell(FINE["elementwise"])])
def test_cells_run_in_inference_mode(cell):
    x, expected = inputs(), parallel_rnn(cell)(inputs())[0]
    with torch.inference_mode():
        for given in (x, x.clone()):
            torch.testing.assert_close(parallel_rnn(cell)(given)[0], expected)
        assert parallel_rnn(nn.GRUCell(4, 4))(x)[0].isfinite().all()
