"""The function solve_recurrence: every method against the loop, certificates, fallbacks and gradients."""

import pytest
import torch

from commutant import InputError
from commutant.sequences import ConvergenceError, jacobian_structure, solve_recurrence
from commutant.sequences._find import METHODS, Options, loop
from commutant.sequences._gated import GATED_CELLS
from commutant.sequences._solve import solve
from commutant.sequences.solvers import Problem, multishoot, newton_like, sequential
from depth import chosen


def gated(name="gru", length=300, batch=2, channels=4, alpha=0.5, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    cell = GATED_CELLS[name]
    pre = torch.randn(length, batch, cell.gates, channels, generator=g, dtype=dtype)
    weights = alpha * (2 * torch.rand(cell.recurrent, channels, generator=g, dtype=dtype) - 1)
    return cell, pre, weights, cell.initial(batch, channels, pre)


def tanh_step(h, x, a):
    return torch.tanh(a * h + x)


def parity_step(h, x):
    """Run a bistable cell, in which a one flips the sign of the state and a zero keeps it."""
    return torch.tanh(3 * h * (1 - 2 * x))


def mixing_step(h, x, w):
    return torch.tanh(h @ w + x)


def slotted_step(h, x, w):
    return torch.stack([torch.tanh(w[0] * h[:, 1] + x), torch.tanh(w[1] * h[:, 0] + w[2] * h[:, 1])], 1)


def parity_input(length, batch=4, seed=0):
    bits = torch.randint(0, 2, (batch, length, 1), generator=torch.Generator().manual_seed(seed))
    return bits.float()


@pytest.mark.parametrize("name", GATED_CELLS)
@pytest.mark.parametrize("length", chosen([1, 2, 5, 63, 130, 517], [1, 2, 130]))
def test_auto_equals_the_loop_forward_and_backward(name, length):
    cell, pre, weights, h_0 = gated(name, length)
    inputs = [t.requires_grad_() for t in (pre, weights, h_0)]
    h, info = solve(cell, (pre,), h_0, (weights,), Options())
    expected = loop(cell, (pre,), h_0, (weights,))
    torch.testing.assert_close(h, expected, rtol=1e-12, atol=1e-12)
    gradient = torch.randn_like(h)
    found = torch.autograd.grad(h, inputs, gradient, allow_unused=True)
    wanted = torch.autograd.grad(expected, inputs, gradient, allow_unused=True)
    for a, b in zip(found, wanted, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert info.method in ("sequential", "multishoot")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_trajectory(method):
    cell, pre, weights, h_0 = gated(length=200, alpha=0.9)
    h, info = solve(cell, (pre,), h_0, (weights,), Options(method, max_iters=12))
    torch.testing.assert_close(h, loop(cell, (pre,), h_0, (weights,)), rtol=1e-12, atol=1e-12)
    assert info.converged == (method not in ("picard", "jacobi"))  # the only ones that need more than 12 iterations
    assert info.mismatch < 1e-13
    assert info.residual < 1e-13


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_closed_derivatives_are_those_of_autograd(name):
    cell, pre, weights, h_0 = gated(name, length=20, alpha=1.0)
    before = torch.tanh(torch.randn(20, *h_0.shape, dtype=torch.float64))
    jacobian, context = cell.linearize(before, (pre,), (weights,))
    torch.testing.assert_close(jacobian, cell.jacobian(before, (pre,), (weights,)))
    lam = torch.randn_like(before)
    d_pre = torch.empty_like(pre)
    (d_weights,) = cell.pullback(context, lam, (d_pre,))
    inputs = (pre.requires_grad_(), weights.requires_grad_())
    wanted = torch.autograd.grad(cell.step(before, (inputs[0],), (inputs[1],)), inputs, lam)
    torch.testing.assert_close(d_pre, wanted[0])
    torch.testing.assert_close(d_weights, wanted[1])


@pytest.mark.parametrize("name", chosen(["gru", "lstm", "sru", "slstm"], ["lstm", "sru"]))
def test_gradcheck(name):
    cell, pre, weights, h_0 = gated(name, length=6, batch=1, channels=2)
    inputs = [t.requires_grad_() for t in (pre, weights, h_0 if name != "slstm" else h_0.clone())]
    inputs = inputs[:2] if name == "slstm" else inputs

    def f(pre, weights, h_0=h_0):
        return solve(cell, (pre,), h_0, (weights,), Options("multishoot"))[0]

    assert torch.autograd.gradcheck(f, inputs)


def test_second_derivatives_come_from_the_loop():
    x, a, h_0 = torch.randn(1, 5, 2), torch.tensor([0.5, -0.3]), torch.randn(1, 2)
    inputs = [t.double().requires_grad_() for t in (x, a, h_0)]
    assert torch.autograd.gradgradcheck(lambda x, a, h_0: solve_recurrence(tanh_step, x, h_0, params=(a,))[0], inputs)


@pytest.mark.parametrize(("iterations", "exact"), [(0, 1), (1, 2), (2, 3), (5, 6), (10, 11), (39, 40)])
def test_newton_is_exact_on_a_prefix_that_grows_by_one_an_iteration(iterations, exact):
    cell, pre, weights, h_0 = gated(length=40, alpha=2.0)
    problem = Problem(cell, h_0, (pre,), (weights,), 0.0)
    attempt = newton_like(problem, "newton", iterations)
    right = (attempt.h - sequential(problem).h).abs().flatten(1).amax(1) < 1e-12
    assert right[:exact].all()


@pytest.mark.parametrize("name", ["mingru", "minlstm"])
def test_one_newton_iteration_solves_a_linear_cell(name):
    cell, pre, weights, h_0 = gated(name)
    attempt = newton_like(Problem(cell, h_0, (pre,), (weights,), 1e-13), "newton", 3)
    assert attempt.iterations == 1


@pytest.mark.parametrize("length", [256, 1024, 4096])
def test_three_newton_iterations_suffice_for_small_recurrent_weights_at_any_length(length):
    cell, pre, weights, h_0 = gated(length=length, dtype=torch.float32, channels=16)
    problem = Problem(cell, h_0, (pre,), (weights,), 0.0)
    assert (newton_like(problem, "newton", 3).h - sequential(problem).h).abs().max() < 1e-5


def test_newton_fails_on_parity_and_nothing_is_silently_wrong():
    x, h_0 = parity_input(512), torch.full((4, 1), 0.5)
    problem = Problem(
        cell=_diagonal(parity_step), h_0=h_0, x=(x.transpose(0, 1),), params=(), tolerance=8 * torch.finfo().eps
    )
    expected = sequential(problem).h
    wrong = newton_like(problem, "newton", 3)
    assert not (wrong.h - expected).abs().max() < 0.1, "the negative control: three iterations must not solve parity"
    assert max(wrong.residual, wrong.mismatch) > 1e-3
    h, info = solve_recurrence(parity_step, x, h_0, method="newton", bound=1.0)
    torch.testing.assert_close(h.transpose(0, 1), expected)
    assert not info.converged
    assert info.fell_back[0] == "newton"


def _diagonal(step):
    from commutant.sequences._cell import StepCell

    cell = StepCell(step, "diagonal", 1, (1,))
    cell.bound = 1.0
    return cell


def test_tables_solve_parity_without_fall_back_to_the_loop():
    x, h_0 = parity_input(2048), torch.full((4, 1), 0.5)
    h, info = solve_recurrence(parity_step, x, h_0, method="tabulated", bound=1.0)
    expected, _ = solve_recurrence(parity_step, x, h_0, method="sequential")
    assert info.converged
    assert info.method == "tabulated"
    torch.testing.assert_close(h, expected, rtol=0, atol=1e-6)


def test_shooting_with_no_mismatch_is_the_loop_to_the_last_bit():
    cell, pre, weights, h_0 = gated(length=1024, batch=8, channels=64, alpha=0.5, dtype=torch.float32)
    problem = Problem(cell, h_0, (pre,), (weights,), 0.0)
    attempt = multishoot(problem, 8, 8, 64)
    assert attempt.mismatch == 0
    assert torch.equal(attempt.h, sequential(problem).h)


@pytest.mark.parametrize("count", [2, 3, 7, 16])
def test_shooting_from_the_worst_guess_needs_at_most_as_many_sweeps_as_chunks(count):
    x, h_0 = parity_input(256), torch.full((4, 1), 0.5)
    problem = Problem(_diagonal(parity_step), h_0, (x.transpose(0, 1),), (), 1e-6)
    attempt = multishoot(problem, count + 1, count, 0)
    assert attempt.mismatch <= 1e-6
    torch.testing.assert_close(attempt.h, sequential(problem).h, rtol=0, atol=1e-5)


def test_slow_gates_are_solved():
    cell, pre, weights, h_0 = gated(length=2000, dtype=torch.float32)
    pre[:, :, 0] -= 6  # a nearly closed update gate, with a memory of hundreds of steps
    h, info = solve(cell, (pre,), h_0, (weights,), Options("multishoot"))
    torch.testing.assert_close(h, loop(cell, (pre,), h_0, (weights,)), rtol=0, atol=1e-5)
    assert info.method == "multishoot"


def test_auto_does_not_shoot_at_a_cell_that_does_not_forget():
    cell, pre, weights, h_0 = gated(length=2000)
    assert solve(cell, (pre,), h_0, (weights,), Options())[1].method == "multishoot"
    pre[:, :, 0] -= 6
    info = solve(cell, (pre,), h_0, (weights,), Options())[1]
    assert info.method == "tabulated"
    assert info.converged


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_sign_flips_and_permutations_of_channels_commute_with_the_cell(name):
    cell, pre, weights, h_0 = gated(name, dtype=torch.float32)
    h, _ = solve(cell, (pre,), h_0, (weights,), Options("sequential"))
    order = torch.tensor([2, 0, 3, 1])
    permuted, _ = solve(cell, (pre[..., order],), h_0[..., order], (weights[:, order],), Options("sequential"))
    assert torch.equal(permuted, h[..., order])
    gate, odd = (2, [0, 1]) if name == "gru" else (1, [0, 2, 3, 4])
    pre[:, :, gate] *= -1
    weights[odd] *= -1
    flipped, _ = solve(cell, (pre,), -h_0, (weights,), Options("sequential"))
    assert torch.equal(flipped, -h)


@pytest.mark.parametrize("alpha", [0.5, 4.0])
def test_states_stay_in_their_bounds(alpha):
    for name in ("gru", "lstm"):
        cell, pre, weights, h_0 = gated(name, alpha=alpha)
        assert solve(cell, (3 * pre,), h_0, (weights,), Options())[0].abs().max() <= 1


def test_split_in_time():
    cell, pre, weights, h_0 = gated("lstm")
    whole, _ = solve(cell, (pre,), h_0, (weights,), Options())
    first, _ = solve(cell, (pre[:170],), h_0, (weights,), Options())
    second, _ = solve(cell, (pre[170:],), first[-1], (weights,), Options())
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)


def test_not_a_number_stays_in_its_row_and_moves_forward():
    cell, pre, weights, h_0 = gated(length=400)
    clean, _ = solve(cell, (pre,), h_0, (weights,), Options("sequential"))
    pre[150, 1, 0, 2] = torch.nan
    for method in ("auto", "tabulated", "newton"):
        h, _ = solve(cell, (pre,), h_0, (weights,), Options(method))
        assert h[150:, 1, 2].isnan().all(), method
        assert h.isnan().sum() == 250, method
        torch.testing.assert_close(h[:, 0], clean[:, 0], rtol=1e-12, atol=1e-12)


def test_structure_is_found_and_a_false_claim_refused():
    mix = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    dense = lambda h, x: torch.tanh(h @ mix + x)  # noqa: E731
    slots = lambda h, x: torch.stack([torch.tanh(h[:, 1] + x), h[:, 0] * x], 1)  # noqa: E731
    h, x = torch.zeros(2, 4), torch.randn(2, 4)
    assert jacobian_structure(dense, h, x).kind == "dense"
    assert jacobian_structure(tanh_step, h, x, (torch.ones(4),)).kind == "diagonal"
    assert jacobian_structure(slots, torch.zeros(2, 2, 4), x).kind == "blocks"
    with pytest.raises(InputError, match="the Jacobian of the step is dense"):
        solve_recurrence(dense, x[:, None].expand(2, 9, 4), h, structure="diagonal")


@pytest.mark.parametrize("kind", ["dense", "blocks"])
def test_other_structures_with_gradients(kind):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 300, 3, generator=g, dtype=torch.float64).requires_grad_()
    weight = (0.4 * torch.randn(3, 3, generator=g, dtype=torch.float64)).requires_grad_()
    step, state = (mixing_step, (3,)) if kind == "dense" else (slotted_step, (2, 3))
    h_0 = torch.zeros(2, *state, dtype=torch.float64)
    results = {}
    for method in ("sequential", "multishoot", "newton", "quasi"):
        h, info = solve_recurrence(step, x, h_0, params=(weight,), method=method, max_iters=20)
        assert info.converged or method == "quasi", method
        results[method] = (h.detach(), *torch.autograd.grad(h.square().sum(), (x, weight)))
    for method, values in results.items():
        for a, b in zip(values, results["sequential"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=method)


def test_tuples_of_inputs_and_half_precision():
    a, b = torch.randn(2, 150, 3), torch.randn(2, 150, 3)
    step = lambda h, x: torch.tanh(0.5 * h * x[0] + x[1])  # noqa: E731
    h, _ = solve_recurrence(step, (a, b), torch.zeros(2, 3))
    half, _ = solve_recurrence(step, (a.bfloat16(), b.bfloat16()), torch.zeros(2, 3, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (half.float() - h).abs().max() < 2e-2


def test_on_fail():
    x, h_0 = parity_input(512), torch.full((4, 1), 0.5)
    with pytest.raises(ConvergenceError, match="boundary mismatch"):
        solve_recurrence(parity_step, x, h_0, method="newton", on_fail="raise")
    with pytest.warns(RuntimeWarning, match="did not converge"):
        solve_recurrence(parity_step, x, h_0, method="newton", on_fail="warn")


def test_sizes_of_nothing():
    for shape in ((2, 0, 3), (0, 4, 3)):
        h, info = solve_recurrence(tanh_step, torch.ones(shape), torch.zeros(shape[0], 3), params=(torch.ones(3),))
        assert h.shape == shape
        assert info.converged


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.ones(3)}, "x must be"),
        ({"h_0": torch.ones(3, 3)}, "h_0 must be"),
        ({"h_0": torch.ones(2, 1, 1, 3)}, "h_0 must be"),
        ({"method": "bisection"}, "method must be one of"),
        ({"structure": "band"}, "structure must be"),
        ({"on_fail": "pray"}, "on_fail must be"),
        ({"bound": -1.0}, "bound must be"),
        ({"method": "tabulated"}, "bounded"),
        ({"step": lambda h, x, a: h[:, :1]}, "step must return a state of the given shape"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(change, said):
    given = {"step": tanh_step, "x": torch.ones(2, 4, 3), "h_0": torch.zeros(2, 3), "params": (torch.ones(3),)}
    given |= change
    with pytest.raises(InputError, match=said):
        solve_recurrence(given.pop("step"), given.pop("x"), given.pop("h_0"), **given)


def test_a_structure_that_shows_on_later_inputs_only_is_caught():
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rare = lambda h, x, w: torch.where(x[:, :1] > 2.9, torch.tanh(h @ w + x), 0.5 * h)  # noqa: E731
    x = torch.zeros(2, 97, 4)
    x[1, 45] = 3.0
    h, _ = solve_recurrence(rare, x, torch.ones(2, 4), params=(weight,))
    with pytest.raises(InputError, match="not diagonal along its trajectory"):
        h.sum().backward()
    padded = lambda h, x, w: torch.where(x[:, :1] != 0, torch.tanh(h @ w + x), h)  # noqa: E731
    x = torch.randn(2, 40, 4)
    x[:, 0] = 0
    h, _ = solve_recurrence(padded, x, torch.zeros(2, 4), params=(weight,))
    expected, _ = solve_recurrence(padded, x, torch.zeros(2, 4), params=(weight,), method="loop")
    found, wanted = (torch.autograd.grad(y.sum(), weight)[0] for y in (h, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_half_precision_does_not_hide_a_dense_jacobian():
    mix = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    step = lambda h, x, w: torch.tanh(0.3 * h @ w + x)  # noqa: E731
    x = torch.randn(2, 9, 4).bfloat16()
    with pytest.raises(InputError, match="dense"):
        solve_recurrence(step, x, x[:, 0], params=(mix.bfloat16(),), structure="diagonal")


def test_second_order_graphs_count_a_shared_parameter_once():
    w = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    u = torch.randn(2, 7, 3, dtype=torch.float64)
    y, _ = solve_recurrence(tanh_step, w * u, torch.zeros(2, 3, dtype=torch.float64), params=(w,))
    (first,) = torch.autograd.grad(y.sum(), w, retain_graph=True)
    (graph,) = torch.autograd.grad(y.sum(), w, create_graph=True)
    torch.testing.assert_close(first, graph)


@pytest.mark.parametrize("method", ["multishoot", "newton", "jacobi", "auto"])
def test_small_states_are_held_to_their_own_scale(method):
    x = torch.full((1, 2048, 1), 1e-8)
    h, _ = solve_recurrence(lambda h, x: 0.999 * h + x, x, torch.zeros(1, 1), method=method)
    expected = 1e-5 * (1 - 0.999 ** torch.arange(1, 2049)).reshape(1, 2048, 1)
    torch.testing.assert_close(h, expected, rtol=1e-3, atol=0)


def test_gradients_stay_finite_where_the_loop_is():
    A = 20 * torch.ones(3, 3)
    x = torch.randn(1, 600, 3).requires_grad_()
    h, _ = solve_recurrence(lambda h, x, A: torch.sin(h @ A + x), x, torch.zeros(1, 3), params=(A,))
    (gradient,) = torch.autograd.grad(h[:, 0].sum(), x)
    assert gradient.isfinite().all()


def test_a_step_that_writes_into_its_state_is_refused():
    with pytest.raises(InputError, match="in place"):
        solve_recurrence(lambda h, x: h.mul_(0.5).add_(x), torch.ones(1, 9, 2), torch.zeros(1, 2))


def test_vmap_over_a_user_step():
    x = torch.randn(3, 2, 9, 4)
    out = torch.func.vmap(lambda x: solve_recurrence(tanh_step, x, torch.zeros(2, 4), params=(torch.ones(4),))[0])(x)
    torch.testing.assert_close(out[1], solve_recurrence(tanh_step, x[1], torch.zeros(2, 4), params=(torch.ones(4),))[0])


def test_forward_derivatives_are_taken_on_copies(monkeypatch):
    """Check that no tangent is as large as the base of a view, which would make the backward pass quadratic in time."""
    real, views = torch.func.jvp, []

    def spy(f, primals, tangents):
        views.extend(p._is_view() for p in primals)
        return real(f, primals, tangents)

    monkeypatch.setattr(torch.func, "jvp", spy)
    x = torch.randn(2, 40, 3, requires_grad=True)
    solve_recurrence(lambda h, x: torch.tanh(0.5 * h + x), x, torch.zeros(2, 3))[0].sum().backward()
    assert views
    assert not any(views)


def test_forgetting_does_not_bound_the_iterations_of_newton():
    """Refute "a negative Lyapunov exponent means few iterations": parity forgets, and needs more with the length."""
    x, h_0 = parity_input(384), torch.full((4, 1), 0.5)
    problem = Problem(_diagonal(parity_step), h_0, (x.transpose(0, 1),), (), 0.0)
    h = sequential(problem).h
    slopes = problem.cell.linearize(problem.before(h), problem.x, ())[0]
    assert slopes.abs().clamp(min=1e-9).log().mean() < -0.4
    errors = [(newton_like(problem, "newton", k).h - h).abs().nan_to_num(9.0).max() for k in (8, 24)]
    assert min(errors) > 0.1


def test_a_small_residual_does_not_mean_a_small_error():
    """Refute the bound for bistable cells: an error of 1e-7 at the basin boundary ends in the other basin."""
    step, x, h_0 = (lambda h, x: torch.tanh(3 * h + x)), torch.zeros(1, 60, 1), torch.zeros(1, 1)
    problem = Problem(_diagonal(step), h_0, (x.transpose(0, 1),), (), 0.0)
    other = sequential(Problem(_diagonal(step), h_0 + 1e-7 / 3, problem.x, (), 0.0)).h
    assert (problem.cell.step(problem.before(other), problem.x, ()) - other).abs().max() < 1.1e-7
    assert (other - sequential(problem).h).abs().max() > 0.9


@pytest.mark.parametrize(("alpha", "bound"), [(0.5, 1.08), (0.9, 1.50)])
def test_clipped_weights_bound_the_jacobian_and_are_not_quite_a_contraction(alpha, bound):
    cell, g = GATED_CELLS["gru"], torch.Generator().manual_seed(0)
    state = 2 * torch.rand(40_000, 1, generator=g, dtype=torch.float64) - 1
    pre = 3 * torch.randn(40_000, 3, 1, generator=g, dtype=torch.float64)
    worst = 0.0
    for signs in torch.cartesian_prod(*[torch.tensor([-alpha, alpha], dtype=torch.float64)] * 3):
        worst = max(worst, float(cell.linearize(state, (pre,), (signs[:, None],))[0].abs().max()))
    assert 0.95 < worst <= bound + 0.005
