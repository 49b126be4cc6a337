"""Regression tests of corner cases of frame averaging."""

import pickle

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import pca_frame
from commutant.geometry import FrameAverage, TransformInvariant, symmetrize_
from commutant.laws import Rotation

R = Rotation(3).sample(torch.zeros(1, 3), torch.Generator().manual_seed(3))
LINE = torch.linspace(-1, 1.4, 4, dtype=torch.float64)[:, None] * torch.tensor([[0.3, -1.0, 2.0]]).double()
FLAT = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([2.0, 1.0, 0.0])


class Field(nn.Module):
    """Network of points that gives each a vector and is symmetric under permutations alone."""

    def __init__(self, inputs=3):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, 24), nn.Tanh(), nn.Linear(24, 3))

    def forward(self, x, *more):
        h = self.net(torch.cat([x, *more], -1))
        return h + h.mean(-2, keepdim=True).sin()


@pytest.mark.parametrize("signs", ["skew", "softskew", "maxabs"])
@pytest.mark.parametrize("group", ["E(3)", "SE(3)", "O(3)", "SO(3)"])
@pytest.mark.parametrize(
    "x", [LINE, FLAT, LINE[:2], torch.ones(3, 3).double()], ids=["line", "plane", "two", "one place"]
)
def test_vectors_of_clouds_without_extent_in_some_direction_under_a_rule(signs, group, x):
    model = FrameAverage(Field().double(), group, outputs="vectors", signs=signs)
    assert torch.allclose(model(x) @ R.mT, model(x @ R.mT), atol=1e-8)


@pytest.mark.parametrize(
    "velocity", [0 * LINE, LINE * torch.tensor([[1.0], [-2.0], [0.5], [0.1]])], ids=["rest", "along"]
)
@pytest.mark.parametrize("group", ["E(3)", "SE(3)"])
def test_a_molecule_on_a_line_at_rest(group, velocity):
    class Moving(Field):
        def forward(self, pos, vel):
            return super().forward(pos, vel)

    model = FrameAverage(Moving(6).double(), group, outputs="vectors")
    assert torch.allclose(model(LINE, velocity) @ R.mT, model(LINE @ R.mT, velocity @ R.mT), atol=1e-8)


@pytest.mark.parametrize("options", [{"scale": "rms"}, {"scale": "max"}, {"signs": "skew"}, {"signs": "softskew"}, {}])
def test_gradients_are_finite_where_clouds_have_no_extent(options):
    octahedron = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    for x in (torch.ones(1, 4, 3).double(), LINE[None], FLAT[None], torch.randn(1, 1, 3).double(), octahedron[None]):
        x = x.clone().requires_grad_()
        frame = pca_frame(x, **options)
        value = frame.pool(frame.canonicalize(x).sin().exp().sum((1, 2))).sum()
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        first.square().sum().backward()
        assert bool(first.isfinite().all())
        assert bool(x.grad.isfinite().all())


def test_a_cloud_in_one_place_does_not_spoil_the_gradients_of_a_batch():
    net = TransformInvariant(nn.Linear(3, 3).double())
    x = torch.stack([torch.randn(5, 3), torch.ones(5, 3)]).double()
    net(x).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


def test_gradients_where_the_mask_hides_nan():
    x = torch.randn(1, 6, 3, dtype=torch.float64)
    mask = torch.tensor([[True] * 5 + [False]])
    hidden = torch.where(mask[..., None], x, torch.nan).requires_grad_()
    frame = pca_frame(hidden, mask=mask)
    frame.pool(frame.canonicalize(hidden).sin().sum((1, 2))).sum().backward()
    assert bool(hidden.grad[:, :5].isfinite().all())
    assert torch.equal(frame.canonicalize(hidden)[:, 5], torch.zeros(len(frame), 3).double())


def test_weights_of_points_go_to_zero_smoothly():
    ring = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0.3, 0.4, 2.0], [0.2, 0.9, -1.0]]).double()
    value = []
    for weight in (0.0, 1e-9, 1e-4):
        mask = torch.tensor([1.0, 1, 1, 1, 0, 0]).double()
        mask[4:] = weight
        frame = pca_frame(ring, "SE", mask=mask)
        value.append(float(frame.pool(frame.canonicalize(ring)[:, :4].sin().exp().sum((1, 2)).sin())))
    assert abs(value[0] - value[1]) < 1e-7
    assert abs(value[0] - value[2]) < 1e-2


def test_tensors_on_a_line_are_refused(unchecked):
    class Stressed(nn.Module):
        def forward(self, pos, stress):
            return (stress @ pos.mean(-2)[..., None])[..., 0].sum(-1)

    model = FrameAverage(Stressed(), "E(3)", inputs={"stress": "tensors"})
    stress = torch.randn(1, 3, 3, dtype=torch.float64)
    model(FLAT[None], stress)
    with pytest.raises(InputError, match="cloud 0 are collinear"):
        model(LINE[None], stress)


def test_outputs_in_nests_and_of_other_types(unchecked):
    net = lambda f: FrameAverage(type("Net", (nn.Module,), {"forward": lambda self, x: f(x)})(), "SE(3)")  # noqa: E731
    x = torch.randn(2, 5, 3)
    deep = net(lambda x: (x[:, 0, :1], {"a": [x[:, 1, :1]], 0: x[:, 2, :1]}, "text", None))(x)
    assert deep[0].shape == deep[1]["a"][0].shape == deep[1][0].shape == (2, 1)
    assert deep[2:] == ("text", None)
    with pytest.raises(InputError, match=r"the output can't be averaged: values must be real or complex"):
        net(lambda x: x.argmax(1))(x)
    with pytest.raises(InputError, match=r"'loss' can't be averaged: .*one per frame"):
        FrameAverage(type("Net", (nn.Module,), {"forward": lambda self, x: {"loss": x.sum()}})(), outputs={})(x)


def test_names_that_are_not_there_are_refused(unchecked):
    net = nn.Linear(3, 3)
    with pytest.raises(InputError, match="no argument 'feild'"):
        FrameAverage(net, inputs={"feild": "vectors"})(torch.randn(4, 3))
    with pytest.raises(InputError, match="returns one Tensor"):
        FrameAverage(net, outputs={"force": "vectors"})(torch.randn(4, 3))
    with pytest.raises(InputError, match="signs must be one of"):
        FrameAverage(net, signs="left")
    with pytest.raises(InputError, match="for a number d"):
        FrameAverage(net, "E(0)")


class Pair(nn.Module):
    def forward(self, a, b, v=None, charge=None):
        return (a + 0.1 * (b - a).sin()).cumsum(-1).sin().sum(-2) + (0 if v is None else v.sin().sum(-2))


def test_the_first_of_several_clouds_gives_the_frame():
    model = FrameAverage(Pair().double(), "SE(3)", inputs={"a": "points", "b": "points", "v": "vectors"})
    a, b = torch.randn(2, 5, 3).double(), torch.randn(2, 5, 3).double()
    shift = torch.ones(3).double()
    assert torch.allclose(model(a, b), model(a @ R.mT + shift, b @ R.mT + shift), atol=1e-9)
    assert torch.allclose(model(a, b, v=None), model(a, b))
    anchor = torch.randn(2, 3).double()
    net = FrameAverage(type("Net", (nn.Module,), {"forward": lambda self, x, c: (x - c[:, None]).exp().sum((1, 2))})(),
                       "SE(3)", inputs={"x": "points", "c": "points"})  # fmt: skip
    assert torch.allclose(net(a, anchor), net(a @ R.mT + shift, anchor @ R.mT + shift), atol=1e-8)


def test_a_field_of_a_molecule_of_three_atoms():
    class Water(nn.Module):
        def forward(self, pos, field):
            return (pos * field[:, None]).sin().cumsum(-1).sum((1, 2))

    model = FrameAverage(Water(), "SE(3)", inputs={"field": "vectors"})
    pos, field = torch.randn(4, 3, 3).double(), torch.randn(4, 3).double()
    assert torch.allclose(model(pos, field), model(pos @ R.mT, field @ R.mT), atol=1e-10)


def test_no_clouds_at_all():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    model = FrameAverage(net, "SE(3)")
    assert model(torch.zeros(0, 5, 3)).shape == (0, 5, 4)
    assert model(torch.zeros(0, 3), batch=torch.zeros(0, dtype=torch.long)).shape == (0, 4)


def test_autocast_does_not_blur_the_points():
    model, x = FrameAverage(nn.Identity(), "SE(3)", outputs="points"), torch.randn(3, 6, 3) + 100
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float((model(x) - x).abs().max()) < 1e-3


def test_functional_gradients():
    x = torch.randn(5, 3, dtype=torch.float64)

    def energy(y):
        frame = pca_frame(y, "SE")
        return frame.pool(frame.canonicalize(y).sin().exp().sum((1, 2))).sum()

    y = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(energy(y), y)
    assert torch.allclose(torch.func.grad(energy)(x), expected, atol=1e-10)


def test_symmetrized_modules_are_pickled_and_refuse_forwards_of_hooks(unchecked):
    net = symmetrize_(Field().double(), "SE(3)", outputs="vectors")
    again = pickle.loads(pickle.dumps(net))
    x = torch.randn(2, 5, 3).double()
    assert torch.equal(net(x), again(x))
    hooked = Field()
    hooked.forward = lambda x: x
    with pytest.raises(InputError, match="its own forward"):
        symmetrize_(hooked)
    assert "x" in __import__("inspect").signature(net.forward).parameters


def test_dropout_of_edges_is_shared():
    class Edges(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.drop = nn.Linear(6, 8), nn.Dropout(0.5)

        def forward(self, pos, edge_index, batch):
            message = self.drop(torch.tanh(self.linear(pos[edge_index].movedim(0, -2).flatten(-2))))
            out = message.new_zeros(len(pos), 8).index_add(0, edge_index[0], message)
            return out.new_zeros(int(batch.max()) + 1, 8).index_add(0, batch, out)

    model = FrameAverage(Edges().double(), "SE(3)").train()
    pos, batch = torch.randn(7, 3).double(), torch.tensor([0, 0, 0, 1, 1, 1, 1])
    edges = torch.tensor([[0, 1, 3, 4, 5, 6], [1, 2, 4, 5, 6, 3]])
    found = []
    for y in (pos, pos @ R.mT):
        torch.manual_seed(0)
        found.append(model(y, edges, batch))
    assert torch.allclose(*found, atol=1e-10)


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        (torch.tensor([[0, -1], [1, 2]]), "points 0 to 5"),
        (torch.tensor([[0, 9], [1, 9]]), "points 0 to 5"),
        (torch.tensor([[0, 1], [1, 2], [2, 0]]), "must be integers"),
        (torch.tensor([[0.0], [1.0]]), "must be integers"),
    ],
)
def test_edges_that_are_none(edges, words, unchecked):
    class Edges(nn.Module):
        def forward(self, pos, edge_index, batch):
            return pos

    with pytest.raises(InputError, match=words):
        FrameAverage(Edges())(torch.randn(6, 3), edges, torch.tensor([0, 0, 0, 1, 1, 1]))
