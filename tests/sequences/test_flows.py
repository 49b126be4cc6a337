"""Flows and flow-equivariant recurrences: signs, slow references, and the paper's laws with their exceptions."""

import pytest
import torch
from torch.nn import functional as F

from commutant import InputError
from commutant.laws import check_action
from commutant.sequences import (
    FERNN,
    FERNNCell,
    FERNNSeq2Seq,
    Flow,
    FlowAction,
    FlowRNN,
    GroupConvolution,
    LiftToFlow,
    ParaFERNN,
    RotationFlow,
    SliceAction,
    TranslationFlow,
    check_flow_equivariance,
    flow_transform,
)

D = torch.float64


@pytest.fixture
def double():
    torch.set_default_dtype(D)
    yield
    torch.set_default_dtype(torch.float32)


def slow_fernn(cell, x):
    """Compute the formula of the paper slice by slice and step by step, with torch.roll."""
    flow = cell.flow
    slices = [x.new_zeros(x.shape[0], cell.hidden_channels, *x.shape[3:]) for _ in range(len(flow))]
    pad = cell.pad
    for t in range(x.shape[1]):
        drive = F.conv2d(F.pad(x[:, t], [pad] * 4, mode="circular"), cell.input.weight, cell.input.bias)
        new = []
        for h, nu in zip(slices, flow.generators.tolist(), strict=True):
            moved = F.pad(h.roll(tuple(nu), (-2, -1)), [pad] * 4, mode="circular")
            new.append(torch.relu(F.conv2d(moved, cell.state.weight) + drive))
        slices = new
    return torch.stack(slices, 1)


@pytest.mark.parametrize("size", [(5, 7), (4, 4), (1, 3)])
def test_translation_is_roll(size):
    x = torch.randn(2, 3, *size)
    for nu in ([0, 0], [1, 0], [0, -2], [2, 3]):
        assert torch.equal(TranslationFlow.grid(1).transform(x, nu, 2), x.roll([2 * v for v in nu], (-2, -1)))


def test_translation_in_one_and_three_dimensions_and_into_the_dark():
    ring = torch.arange(5.0)
    assert TranslationFlow.grid(1, dims=1).transform(ring, [1], 2).tolist() == [3, 4, 0, 1, 2]
    box = torch.randn(2, 3, 4)
    assert torch.equal(TranslationFlow.grid(1, dims=3).transform(box, [1, -1, 2], 1), box.roll((1, -1, 2), (0, 1, 2)))
    assert TranslationFlow([[1]], boundary="zero").transform(ring, [1], 2).tolist() == [0, 0, 0, 1, 2]
    assert TranslationFlow([[1]], boundary="zero").transform(ring, [9], 1).tolist() == [0] * 5


def test_zero_boundary_in_a_cell_is_a_zero_padded_convolution():
    cell = FERNNCell(1, 2, TranslationFlow([[0, 1]], boundary="zero"), bias=False)
    x, h = torch.randn(2, 1, 5, 6), torch.randn(2, 1, 2, 5, 6)
    moved = F.pad(h[:, 0], (1, 0))[..., :-1]
    conv = F.conv2d(moved, cell.state.weight, padding=1) + F.conv2d(x, cell.input.weight, padding=1)
    torch.testing.assert_close(cell(x, h)[:, 0], conv.relu())


@pytest.mark.parametrize("size", [(5, 5), (4, 4)])
def test_right_angles_are_rot90(size):
    x = torch.randn(2, 3, *size)
    flow = RotationFlow([0, 90], 4)
    for quarter in range(5):
        assert torch.equal(flow.transform(x, [90], quarter), torch.rot90(x, quarter, (-2, -1)))
    field = torch.randn(2, 3, 4, *size)
    turned = torch.rot90(field, 1, (-2, -1)).roll(1, 2)
    assert torch.equal(flow.transform(field, [90], 1, lifted=True), turned)


def test_repeated_bilinear_rotation_loses_detail():
    """Law 9: a full turn in 36 steps destroys most of a fine texture, so it is not exact."""
    x = torch.randn(1, 1, 17, 17)
    y, flow = x, RotationFlow([10], 36)
    for _ in range(36):
        y = flow.transform(y, [10], 1)
    center = (..., slice(4, 13), slice(4, 13))
    assert (y - x)[center].norm() / x[center].norm() > 0.5
    smooth = torch.sin(torch.linspace(-1, 1, 17)[:, None] + torch.linspace(-1, 1, 17))[None, None]
    there = flow.transform(flow.transform(smooth, [10], 1), [-10], 1)
    torch.testing.assert_close(there[center], smooth[center], atol=0.02, rtol=0)


def test_fourier_shifts_are_exact_on_odd_tori(double):
    flow = TranslationFlow([[0.5, 0.3]], interpolation="fourier")
    x = torch.randn(2, 7, 9)
    torch.testing.assert_close(flow.transform(flow.transform(x, [0.5, 0.3], 1), [-0.5, -0.3], 1), x, atol=1e-12, rtol=0)
    torch.testing.assert_close(flow.transform(x, [2.0, -1.0], 1), x.roll((2, -1), (-2, -1)), atol=1e-12, rtol=0)
    assert FERNN(1, 2, flow)(torch.randn(1, 3, 1, 7, 9))[0].shape == (1, 3, 2, 7, 9)


@pytest.mark.parametrize("flow", [TranslationFlow.closed(3, 4), RotationFlow([0, 90, 180, 270], 4)])
def test_actions_obey_the_axioms(flow, double):
    sizes = (3, 4) if isinstance(flow, TranslationFlow) else (5, 5)
    assert check_action(FlowAction(flow), torch.randn(2, 3, 1, *sizes)) == 0
    space = sizes if isinstance(flow, TranslationFlow) else (4, *sizes)
    assert check_action(SliceAction(flow), torch.randn(2, 3, len(flow), 1, *space)) == 0


def test_it_is_the_slow_loop_forward_and_backward(double):
    cell = FERNNCell(1, 3, TranslationFlow.grid(1))
    x = torch.randn(2, 4, 1, 6, 7)
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    fast, slow = FlowRNN([cell], pool=None)(leaf)[0][:, -1], slow_fernn(cell, other)
    torch.testing.assert_close(fast, slow, atol=1e-13, rtol=0)
    weights = torch.randn_like(fast)
    parameters = tuple(cell.parameters())
    ours = torch.autograd.grad((fast * weights).sum(), (leaf, *parameters))
    theirs = torch.autograd.grad((slow * weights).sum(), (other, *parameters))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def test_hidden_law_exactly(double):
    """Law 1: h'_t(nu, x) = h_t(nu - nu_hat, x - t nu_hat), with no error at all."""
    flow = TranslationFlow.closed(6, 6)
    x = torch.randn(1, 5, 1, 6, 6)
    for pool in (None, "max", "mean", "sum"):
        report = check_flow_equivariance(FERNN(1, 3, flow, num_layers=2, pool=pool), flow, x, tolerance=1e-13)
        assert report.holds, str(report)
    assert float(check_flow_equivariance(FERNN(1, 3, flow, pool=None), flow, x).errors.max()) == 0
    assert report.boundary.isnan().all()


def test_without_velocities_it_fails_from_the_second_step_on(double):
    x = torch.randn(1, 5, 1, 6, 6)
    report = check_flow_equivariance(
        FERNN(1, 3, TranslationFlow.grid(0), activation="tanh"), TranslationFlow.grid(1), x
    )
    moving = report.generators.abs().sum(1) > 0
    assert report.errors[:, 0].max() == 0
    assert (report.errors[moving, 1:] > 1e-2).all()
    assert report.errors[~moving].max() == 0
    assert "first at step 1" in str(report)


def test_a_part_of_v_matches_where_it_can_and_not_elsewhere(double):
    """Law 4: slices whose source is in V are exact; other slices and pooled outputs are not."""
    flow = TranslationFlow.grid(1)
    x = torch.randn(1, 5, 1, 6, 6)
    report = check_flow_equivariance(FERNN(1, 3, flow, pool=None), flow, x)
    assert float(report.errors.max()) == 0
    assert float(report.boundary[(flow.generators != 0).any(1)].min(1).values.max()) >= 0
    assert float(report.boundary.nan_to_num().max()) > 0.1
    assert "outside V" in str(report)
    assert not check_flow_equivariance(FERNN(1, 3, flow), flow, x).holds


@pytest.mark.parametrize("steps", [4, 1])
def test_the_aligned_decoder_is_exact_and_the_lagged_one_is_not(double, steps):
    flow = TranslationFlow.closed(6, 6)
    x = torch.randn(1, 4, 1, 6, 6)
    for decode, holds in (("aligned", True), ("lagged", False)):
        net = FERNNSeq2Seq(1, 3, flow, decode=decode, decoder_layers=2)
        for start in (4, 3) if decode == "lagged" else (4,):
            report = check_flow_equivariance(lambda x, net=net: net(x, steps), flow, x, start=start)
            if start == 4 or steps > 1:
                assert report.holds is holds, (decode, start, str(report))


def test_one_velocity_is_the_plain_network_and_parameters_do_not_depend_on_v():
    plain = FERNNCell(1, 3, TranslationFlow.grid(0))
    x, h = torch.randn(2, 1, 6, 6), torch.randn(2, 1, 3, 6, 6)
    conv = plain.state(F.pad(h[:, 0], [1] * 4, mode="circular")) + plain.input(F.pad(x, [1] * 4, mode="circular"))
    assert torch.equal(plain(x, h)[:, 0], conv.relu())
    wide = FERNNCell(1, 3, TranslationFlow.grid(2))
    wide.load_state_dict(plain.state_dict())
    rest = wide.flow.index_of(torch.tensor([0, 0])).item()
    lifted = h.expand(-1, 25, -1, -1, -1)
    torch.testing.assert_close(wide(x, lifted)[:, rest], plain(x, h)[:, 0], atol=1e-6, rtol=0)
    count = sum(p.numel() for p in FERNNSeq2Seq(1, 128, TranslationFlow.grid(2), bias=False).parameters())
    assert count == 739_584  # the paper's network


def test_rest_and_composition():
    x = torch.randn(2, 4, 1, 5, 5)
    flow = TranslationFlow.grid(1)
    assert torch.equal(flow_transform(x, flow, [0, 0]), x)
    twice = flow_transform(flow_transform(x, flow, [1, 0]), flow, [0, -1])
    assert torch.equal(twice, flow_transform(x, flow, [1, -1]))


def test_pooling_velocities_and_space_is_invariant(double):
    flow = TranslationFlow.closed(5, 5)
    net, x = FERNN(1, 3, flow), torch.randn(1, 4, 1, 5, 5)
    invariant = lambda x: net(x)[0].amax((-2, -1))  # noqa: E731
    for nu in ([1, 0], [2, -1]):
        assert torch.equal(invariant(flow_transform(x, flow, nu)), invariant(x))


def test_first_state_is_the_same_in_every_slice():
    h = FERNN(1, 2, TranslationFlow.grid(1), pool=None)(torch.randn(2, 1, 1, 5, 5))[0]
    assert torch.equal(h, h[:, :, :1].expand_as(h))


def test_c4_is_exact_and_finer_rotations_are_not(double):
    x = torch.randn(1, 4, 1, 6, 6)
    quarter = RotationFlow([0, 90, 180, 270], 4)
    for pool in (None, "max"):
        report = check_flow_equivariance(FERNN(1, 2, quarter, num_layers=2, pool=pool), quarter, x, tolerance=1e-12)
        assert report.holds, str(report)
    net = FERNNSeq2Seq(1, 2, quarter, decoder_layers=1)
    assert check_flow_equivariance(lambda x: net(x, 3), quarter, x, start=4, tolerance=1e-12).holds
    fine = RotationFlow([0, 30, -30], 12)
    assert not check_flow_equivariance(FERNN(1, 2, fine, pool=None), fine, x).holds


def test_group_convolution_commutes_with_turns(double):
    lift, deep = GroupConvolution(2, 3, 3, 4, True, lifting=True), GroupConvolution(3, 2, 3, 4, True, lifting=False)
    flow, x = RotationFlow([90], 4), torch.randn(2, 2, 7, 7)
    expected = flow.transform(deep(lift(x)), [90], 1, lifted=True)
    torch.testing.assert_close(deep(lift(flow.transform(x, [90], 1))), expected, atol=1e-12, rtol=0)


def test_flows_that_do_not_commute_break_the_law(double):
    """Law 10: a cell lifted to translations and rotations together is not flow-equivariant."""

    def act(field, nu, t):
        turned = torch.stack([torch.rot90(field, k, (-2, -1)) for k in range(4)])[(nu[0] * t) % 4]
        index = (torch.arange(5) - t * nu[1]) % 5
        return turned.gather(-1, index.expand(turned.shape))

    weight = torch.ones(1, 1, 3, 3)

    def cell(x, h):
        return torch.tanh(x if h is None else x + F.conv2d(F.pad(h, [1] * 4, mode="circular"), weight) / 9)

    x = torch.randn(1, 4, 1, 5, 5)
    both = Flow(act, [[r, v] for r in range(4) for v in range(5)])
    assert not check_flow_equivariance(FlowRNN([LiftToFlow(cell, both)], "max"), both, x).holds
    for alone in (Flow(act, [[r, 0] for r in range(4)]), Flow(act, [[0, v] for v in range(5)])):
        assert check_flow_equivariance(FlowRNN([LiftToFlow(cell, alone)], "max"), alone, x, tolerance=1e-12).holds


def test_any_cell_can_be_lifted(double):
    flow = TranslationFlow.closed(5, 5)
    own = FERNNCell(1, 3, flow)

    def cell(x, h):
        drive = own.input(F.pad(x, [1] * 4, mode="circular"))
        return torch.relu(drive if h is None else own.state(F.pad(h, [1] * 4, mode="circular")) + drive)

    x = torch.randn(2, 4, 1, 5, 5)
    lifted = FlowRNN([LiftToFlow(cell, flow)], pool=None)
    torch.testing.assert_close(lifted(x)[0], FlowRNN([own], pool=None)(x)[0], atol=1e-12, rtol=0)

    gates = torch.nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")

    def convlstm(x, state):
        h, c = state if state is not None else (x.new_zeros(x.shape[0], 2, 5, 5),) * 2
        i, f, o, g = gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    net = FlowRNN([LiftToFlow(convlstm, flow)], pool="max")
    assert check_flow_equivariance(net, flow, x, tolerance=1e-12).holds
    assert len(net(x)[1][0]) == 2


def test_velocities_that_mix_see_their_neighbors_only(double):
    flow = TranslationFlow.grid(2)
    cell = FERNNCell(1, 2, flow, v_mixing=1)
    h = torch.zeros(1, 25, 2, 7, 7, requires_grad=True)
    center = flow.index_of(torch.tensor([0, 0])).item()
    (gradient,) = torch.autograd.grad(cell.state(flow.shift(cell._mix(h), 1).flatten(0, 1))[center].sum(), h)
    touched = gradient.abs().sum((0, 2, 3, 4)) > 0
    assert torch.equal(touched, (flow.generators.abs() <= 1).all(1))


def test_states_are_carried_and_sequences_may_be_empty():
    net = FERNN(1, 3, TranslationFlow.grid(1), num_layers=2)
    x = torch.randn(2, 6, 1, 5, 5)
    whole, last = net(x)
    _, middle = net(x[:, :4])
    rest, end = net(x[:, 4:], middle)
    torch.testing.assert_close(rest, whole[:, 4:], atol=1e-6, rtol=0)
    torch.testing.assert_close(end[1], last[1], atol=1e-6, rtol=0)
    nothing, same = net(x[:, :0], middle)
    assert nothing.shape == (2, 0, 3, 5, 5)
    assert all(torch.equal(a, b) for a, b in zip(same, middle, strict=True))


def test_the_time_parallel_recurrence_is_its_loop(double):
    flow = TranslationFlow.grid(1)
    net = ParaFERNN(1, 3, flow, pool=None, method="multishoot")
    x = torch.randn(2, 200, 1, 4, 5, requires_grad=True)
    y, last = net(x)
    assert net.info[0].method == "multishoot"
    a_z, a_r, a_c = (w[:, None, None] for w in net.weight_hh)
    h, states = torch.zeros(2, 9, 3, 4, 5), []
    for t in range(200):
        p = net.input(F.pad(x[:, t], [1] * 4, mode="circular")).unflatten(1, (3, 3)).unsqueeze(1)
        h = flow.shift(h)
        z, r = torch.sigmoid(a_z * h + p[:, :, 0]), torch.sigmoid(a_r * h + p[:, :, 1])
        h = (1 - z) * h + z * torch.tanh(a_c * h * r + p[:, :, 2])
        states.append(h)
    expected = torch.stack(states, 1)
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=0)
    weights = torch.randn_like(y)
    leaves = (x, *net.parameters())
    ours, theirs = (torch.autograd.grad((out * weights).sum(), leaves, retain_graph=True) for out in (y, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    rest, end = net(x[:, 90:], net(x[:, :90])[1])
    torch.testing.assert_close(rest, y[:, 90:], atol=1e-12, rtol=0)
    torch.testing.assert_close(end, last, atol=1e-12, rtol=0)


def test_nan_stays_in_its_sample_and_gradients_reach_everything():
    net = FERNN(1, 3, TranslationFlow.grid(1))
    x = torch.randn(3, 4, 1, 5, 5)
    x[1, 2] = torch.nan
    y = net(x)[0]
    assert y[[0, 2]].isfinite().all()
    assert y[1, :2].isfinite().all()
    assert y[1, 2:].isnan().all()
    x = torch.randn(2, 4, 1, 5, 5, requires_grad=True)
    net(x)[0].sum().backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (x, *net.parameters()))


@pytest.mark.parametrize("flow", [TranslationFlow.grid(1), RotationFlow([0, 90], 4)])
def test_half_precision_autocast_and_transforms(flow):
    net, x = FERNN(1, 2, flow), torch.rand(2, 3, 1, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net(x)[0].float(), net(x)[0].float())
    assert net.bfloat16()(x.bfloat16())[0].dtype == torch.bfloat16
    net.float()
    batched = torch.func.vmap(lambda row: net(row[None])[0][0])(x)
    torch.testing.assert_close(batched, net(x)[0], atol=1e-6, rtol=0)


def test_it_compiles_without_a_break(unchecked):
    net, x = FERNN(1, 2, TranslationFlow.grid(1)), torch.rand(2, 3, 1, 4, 4)
    expected = net(x)[0]
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x)[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TranslationFlow([[0.5, 0]]), "whole pixels"),
        (lambda: TranslationFlow([[0, 0], [0, 0]]), "differ from each other"),
        (lambda: TranslationFlow([]), "at least one"),
        (lambda: TranslationFlow([[0, float("nan")]]), "finite"),
        (lambda: TranslationFlow([[0] * 4]), "1 to 3 axes"),
        (lambda: TranslationFlow([[0, 0]], boundary="mirror"), "boundary"),
        (lambda: TranslationFlow([[0.5]], boundary="zero", interpolation="fourier"), "torus"),
        (lambda: RotationFlow([15], 8), "multiples of 360 / 8"),
        (lambda: FERNNCell(1, 2, Flow(lambda f, nu, t: f, [[0]])), "LiftToFlow"),
        (lambda: FERNNCell(1, 2, TranslationFlow.grid(1), kernel_size=2), "kernel_size must be a positive odd number"),
        (lambda: FERNNCell(1, 2, TranslationFlow.grid(1), activation="gelu"), "activation"),
        (lambda: FERNN(1, 2, TranslationFlow.grid(1), pool="median"), "pool"),
        (lambda: FERNN(1, 2, TranslationFlow.grid(1), num_layers=0), "num_layers"),
        (lambda: FERNNSeq2Seq(1, 2, TranslationFlow.grid(1), decode="free"), "decode"),
        (lambda: ParaFERNN(1, 2, RotationFlow([0], 4)), "torus"),
        (lambda: ParaFERNN(1, 2, TranslationFlow.grid(1), method="x"), "method must be"),
        (lambda: ParaFERNN(1, 2, TranslationFlow.grid(1))(torch.rand(1, 5, 2, 4, 4)), "2 axes of the domain"),
        (lambda: FERNNSeq2Seq(1, 2, TranslationFlow.grid(1), decoder_layers=-1), "layers must be"),
        (lambda: LiftToFlow(3, TranslationFlow.grid(1)), "cell"),
        (lambda: FERNN(1, 2, TranslationFlow.grid(1))(torch.rand(2, 0, 1, 4, 4)), "at least one step"),
        (lambda: FERNN(1, 2, TranslationFlow.grid(1))(torch.rand(2, 3, 2, 4, 4)), "a frame must be"),
        (lambda: FERNN(1, 2, TranslationFlow.grid(1))(torch.rand(2, 3, 1, 4, 4), []), "one per cell"),
        (
            lambda: FERNNCell(1, 2, TranslationFlow.grid(1))(torch.rand(2, 1, 4, 4), torch.rand(2, 8, 2, 4, 4)),
            "state must",
        ),
        (lambda: TranslationFlow.grid(1).shift(torch.rand(2, 3, 1, 4, 4)), "9 slices"),
        (lambda: FERNNSeq2Seq(1, 2, TranslationFlow.grid(1))(torch.rand(2, 0, 1, 4, 4), 2), "at least one frame"),
        (lambda: FERNNSeq2Seq(1, 2, TranslationFlow.grid(1))(torch.rand(2, 1, 1, 4, 4), -2), "n_future"),
        (
            lambda: SliceAction(TranslationFlow.grid(1)).act(torch.tensor([1, 0]), torch.rand(1, 2, 9, 1, 4, 4)),
            "must be closed",
        ),
    ],
)
def test_errors_name_what_was_given(make, said, unchecked):
    with pytest.raises(InputError, match=said):
        make()
