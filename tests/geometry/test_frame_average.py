"""Frame averaging of networks: kinds of arguments, layouts, dropout, chunks, samples and real model classes."""

import copy
import inspect
from dataclasses import fields

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import pca_frame
from commutant.geometry import FrameAverage, symmetrize_
from commutant.geometry._frame_options import FrameKeywords, FrameOptions
from commutant.laws import Euclidean, Rotation

GENERATOR = torch.Generator().manual_seed(7)
R = Rotation(3).sample(torch.zeros(1, 3), GENERATOR)
T = torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)


class Molecules(nn.Module):
    """Message-passing network of positions, velocities and bonds, with PyG's names of arguments."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, 9))
        self.bond = nn.Linear(4, 9)

    def forward(self, pos, vel, edge_index, edge_attr, z, field, batch=None):
        h = self.inner(torch.cat([pos, vel, z[:, None], field[batch].sum(-1, keepdim=True)], -1))
        message = torch.tanh(h[edge_index[1]] + self.bond(edge_attr))
        h = h.index_add(0, edge_index[0], message)
        energy = h.new_zeros(int(batch.max()) + 1).index_add(0, batch, h.sin().sum(-1))
        return {"energy": energy, "force": h[:, :3], "place": h[:, 3:6], "twist": h[:, 6:], "steps": 3}


OUTPUTS = {"force": "vectors", "place": "points", "twist": "pseudovectors"}


def molecules():
    batch = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 4])
    edges = torch.tensor([[0, 1, 2, 3, 4, 5, 8, 6, 7], [1, 2, 0, 4, 3, 3, 7, 6, 8]])
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
    return {"pos": draw(10, 3), "vel": draw(10, 3), "edge_index": edges, "edge_attr": draw(9, 4), "z": draw(10),
            "field": draw(5, 3), "batch": batch}  # fmt: skip


def turned(x, r=R, t=T):
    return x | {"pos": x["pos"] @ r.mT + t, "vel": x["vel"] @ r.mT, "field": x["field"] @ r.mT}


def close(a, b, tolerance=1e-10):
    return all(torch.allclose(a[k], b[k], atol=tolerance) for k in a if isinstance(a[k], torch.Tensor))


@pytest.mark.parametrize("group", ["SE(3)", "E(3)"])
@pytest.mark.parametrize("frames", ["pca", "weighted"])
def test_a_message_passing_network_with_all_kinds_of_arguments(group, frames):
    net = Molecules().double()
    model = FrameAverage(net, group, inputs={"field": "vectors"}, outputs=OUTPUTS, frames=frames)
    x = molecules()
    r = R if group == "SE(3)" else -R
    first, second = model(**x), model(**turned(x, r))
    back = {k: first[k] for k in ("energy", "steps")}
    back |= {"force": first["force"] @ r.mT, "place": first["place"] @ r.mT + T}
    back["twist"] = torch.linalg.det(r) * first["twist"] @ r.mT
    assert close(second, back)
    assert first["energy"][3].item() == 0, "a cloud without points"
    plain = [net(**x)["energy"], net(**turned(x, r))["energy"]]
    assert float((plain[0] - plain[1]).detach().abs().max()) > 0.01, "the bare network has no symmetry"

    order = torch.randperm(10)
    where = order.argsort()
    shuffled = {k: x[k][order] for k in ("pos", "vel", "z", "batch")} | {"edge_index": where[x["edge_index"]]}
    third = model(**(x | shuffled))
    assert close({k: first[k][order] for k in OUTPUTS} | {"energy": first["energy"]}, third)


def test_positional_and_keyword_arguments_are_the_same():
    model = FrameAverage(Molecules().double(), "SE(3)", inputs={"field": "vectors"}, outputs=OUTPUTS)
    x = molecules()
    assert close(model(**x), model(*x.values()))


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_change_nothing(chunk):
    net, x = Molecules(0.5).double(), molecules()
    whole, parts = (
        FrameAverage(net, "SE(3)", inputs={"field": "vectors"}, outputs=OUTPUTS, chunk=c) for c in (None, chunk)
    )
    for mode in (True, False):
        found = []
        for model in (whole.train(mode), parts.train(mode)):
            torch.manual_seed(3)
            found.append(model(**x))
        assert close(*found)


def test_dropout_is_the_same_in_all_frames_of_a_cloud():
    model = FrameAverage(Molecules(0.5).double(), "SE(3)", inputs={"field": "vectors"}, outputs=OUTPUTS).train()
    x, found = molecules(), []
    for seed, inputs in ((3, x), (3, turned(x)), (4, x)):
        torch.manual_seed(seed)
        found.append(model(**inputs)["energy"])
    assert torch.allclose(found[0], found[1], atol=1e-10)
    assert float((found[0] - found[2]).detach().abs().max()) > 1e-3


class Images(nn.Module):
    """Network of stacked clouds with dropout of every shape."""

    def __init__(self):
        super().__init__()
        self.drops = nn.ModuleList([nn.Dropout(0.5), nn.Dropout1d(0.5), nn.Dropout(0.5, inplace=True)])
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        for drop in self.drops:
            x = drop(torch.tanh(self.linear(x)))
        flat = nn.functional.dropout(x.reshape(-1, 3), 0.3, self.training)  # rows of all points in one axis
        return flat.reshape(x.shape).cumsum(-1).sin().mean(1)


def test_dropout_of_stacked_clouds():
    model = FrameAverage(Images().double(), "SE(3)", outputs="vectors").train()
    x, found = torch.randn(4, 6, 3, dtype=torch.float64), []
    for inputs in (x, x @ R.mT + T):
        torch.manual_seed(0)
        found.append(model(inputs))
    assert torch.allclose(found[0] @ R.mT, found[1], atol=1e-10)
    with pytest.raises(InputError, match="alpha dropout"):
        FrameAverage(nn.Sequential(nn.Linear(3, 3), nn.AlphaDropout(0.5))).train()(x.float())
    attention = nn.TransformerEncoderLayer(3, 1, 8, dropout=0.5, batch_first=True)
    with pytest.warns(UserWarning, match="dropout inside attention"):
        FrameAverage(attention).train()(x.float())


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_leading_axes_come_back_as_they_were(lead):
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.randn(*lead, 6, 3, dtype=torch.float64)
    field = FrameAverage(net, "SE(3)", outputs="vectors")(x)
    assert field.shape == x.shape
    one = FrameAverage(net, "SE(3)", outputs="vectors")(x.reshape(-1, 6, 3)[-1])
    assert torch.allclose(field.reshape(-1, 6, 3)[-1], one, atol=1e-10)


def test_what_a_mask_leaves_out_is_never_read():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x, mask):
            return torch.where(mask[..., None], torch.tanh(self.linear(x)), 0.0).sum(1)

    model = FrameAverage(Masked().double(), "E(3)")
    x, mask = torch.randn(3, 7, 3, dtype=torch.float64), torch.rand(3, 7) > 0.4
    mask[:, 0] = True
    found = model(x, mask=mask)
    assert torch.equal(found, model(torch.where(mask[..., None], x, 1e9), mask=mask))
    assert torch.allclose(found, model(x @ -R.mT + T, mask), atol=1e-10)
    alone = model(x[1, mask[1]][None], torch.ones(1, int(mask[1].sum()), dtype=torch.bool))
    assert torch.allclose(found[1], alone[0], atol=1e-10)


def test_a_layout_that_the_network_does_not_ask_for_is_for_the_frame_alone():
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    model = FrameAverage(net, "SE(3)", outputs="vectors")
    x, batch = torch.randn(9, 3, dtype=torch.float64), torch.tensor([0] * 4 + [1] * 5)
    both = torch.cat([model(x[:4]), model(x[4:])])
    assert torch.allclose(model(x, batch=batch), both, atol=1e-10)


def test_samples_in_training_and_all_frames_in_evaluation():
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    seen = []
    net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    model, x = FrameAverage(net, "E(3)", outputs="vectors", samples=2), torch.randn(5, 6, 3, dtype=torch.float64)
    model.train()(x), model.eval()(x)
    assert seen == [10, 40]
    drawn = model.train()(x.expand(2000, 5, 6, 3)).mean(0)
    assert float((drawn - model.eval()(x)).detach().abs().max()) < 0.1


def test_attention_over_frames():
    net, score = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double(), nn.Linear(3, 1).double()
    model = FrameAverage(net, "SE(3)", outputs="vectors", score=score)
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    assert torch.allclose(model(x) @ R.mT, model(x @ R.mT + T), atol=1e-10)
    model(x).square().sum().backward()
    assert float(score.weight.grad.abs().max()) > 0
    ragged = model(x.flatten(0, 1), batch=torch.arange(5).repeat_interleave(6))
    assert torch.allclose(ragged.view_as(x), model(x), atol=1e-10)


def test_forces_are_exact_and_can_be_trained_on():
    class Energy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

        def forward(self, x):
            return self.net(x).square().sum((1, 2))

    model = FrameAverage(Energy().double(), "SE(3)")
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    (force,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    assert torch.autograd.gradcheck(lambda y: model(y), (x,), atol=1e-6)
    assert float(torch.linalg.cross(x, force).sum(1).detach().abs().max()) < 1e-13
    force.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    wrong = FrameAverage(model.net, "SE(3)", gradient="detach")
    (bad,) = torch.autograd.grad(wrong(x).sum(), x)
    assert float((bad - force).detach().norm() / force.detach().norm()) > 0.01
    assert "detached" in repr(wrong)


def test_symmetrizing_in_place_keeps_class_names_and_copies():
    net = Molecules().double()
    names = list(net.state_dict())
    reference = FrameAverage(copy.deepcopy(net), "SE(3)", inputs={"field": "vectors"}, outputs=OUTPUTS)
    same = symmetrize_(net, "SE(3)", inputs={"field": "vectors"}, outputs=OUTPUTS)
    x = molecules()
    assert same is net
    assert isinstance(net, Molecules)
    assert list(net.state_dict()) == names
    assert close(net(**x), reference(**x))
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.bond.weight.zero_()
    assert not close(net(**x), other(**x)), "a copy runs on its own parameters"
    with pytest.raises(InputError, match="already symmetrized"):
        symmetrize_(net)


def test_a_transformer_of_hugging_face_on_points():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=3, intermediate_size=16)
    model = transformers.BertModel(config, add_pooling_layer=False).double().eval()
    lift = nn.Linear(3, 12).double()

    class Points(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.lift = model, lift

        def forward(self, pos, attention_mask=None):
            return self.model(inputs_embeds=self.lift(pos), attention_mask=attention_mask)

    average = FrameAverage(Points(), "SE(3)", inputs={"attention_mask": "mask"}).eval()
    x, mask = torch.randn(2, 6, 3, dtype=torch.float64), torch.ones(2, 6)
    mask[0, 4:] = 0
    first, second = average(x, attention_mask=mask), average(x @ R.mT + T, attention_mask=mask)
    assert type(first) is type(second)
    kept = mask.bool()
    assert torch.allclose(first.last_hidden_state[kept], second.last_hidden_state[kept], atol=1e-10)


def test_frames_of_your_own():
    net = nn.Linear(3, 3).double()
    model = FrameAverage(
        net, "E(3)", outputs="vectors", frames=lambda x, clouds: pca_frame(x, "SE", clouds=clouds).best()
    )
    assert model(torch.randn(2, 5, 3, dtype=torch.float64)).shape == (2, 5, 3)


def test_autocast_leaves_the_frame_in_double():
    net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 3))
    model, x = FrameAverage(net, "E(3)"), torch.randn(4, 10, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(x)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), model(x), atol=0.05)


@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
def test_compiled_models_give_the_same(unchecked):
    model = FrameAverage(nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3)), "SE(3)", outputs="vectors")
    x = torch.randn(4, 10, 3)
    assert torch.allclose(torch.compile(model, backend="eager")(x), model(x), atol=1e-5)


def test_vectors_on_action_turn_and_do_not_shift():
    action = Euclidean(3)
    g = (R, T)
    assert torch.allclose(action.on_vectors.act(g, T), R @ T)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FrameAverage(nn.Linear(3, 3), "SE"), "for a number d"),
        (lambda: FrameAverage(nn.Linear(3, 3), "SO(3)", outputs="spinors"), "kind must be one of"),
        (lambda: FrameAverage(nn.Linear(3, 3), outputs="edges"), "an output must be one of"),
        (lambda: FrameAverage(nn.Linear(3, 3), inputs="spinors"), "kind must be one of"),
        (lambda: FrameAverage(nn.Linear(3, 3), gradient="no"), "gradient must be"),
        (lambda: FrameAverage(nn.Linear(3, 3), frames="best"), "frames must be"),
        (lambda: FrameAverage(nn.Linear(3, 3), samples=0), "samples must be a whole number of at least 1"),
        (lambda: FrameAverage(nn.Linear(3, 3))(torch.randn(4, 2)), "must end in 3"),
        (lambda: FrameAverage(nn.Linear(3, 3))(torch.full((4, 3), torch.nan)), "finite"),
        (lambda: FrameAverage(nn.Linear(3, 3))(torch.randn(4, 3), torch.randn(4)), "can't be called like this"),
        (lambda: FrameAverage(nn.Linear(3, 3))(), "can't be called like this"),
        (lambda: FrameAverage(nn.Linear(3, 2), outputs="vectors")(torch.randn(4, 3)), "vectors must end in"),
        (lambda: FrameAverage(nn.Flatten(0, 1))(torch.randn(2, 4, 3)), "one per frame"),
        (lambda: FrameAverage(nn.Bilinear(3, 3, 2))(torch.randn(4, 5, 3), torch.randn(3, 5, 3)), "to match the points"),
    ],
)
def test_bad_input_is_named(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("public", [FrameAverage, symmetrize_])
def test_signatures_list_all_options(public):
    options = {field.name: field.default for field in fields(FrameOptions)}
    shown = {name: p.default for name, p in inspect.signature(public).parameters.items() if name in options}
    assert shown == options
    assert set(FrameKeywords.__annotations__) == set(options) - {"group"}


def test_edges_must_stay_within_clouds(unchecked):
    x = molecules()
    x["edge_index"] = torch.tensor([[0], [9]])
    x["edge_attr"] = torch.zeros(1, 4, dtype=torch.float64)
    model = FrameAverage(Molecules().double(), "SE(3)", inputs={"field": "vectors"}, outputs=OUTPUTS)
    with pytest.raises(InputError, match="joins points of two clouds"):
        model(**x)


class Docking(nn.Module):
    """Energy of two clouds, and a vector that acts on the first one."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.push = nn.Linear(3, 16), nn.Linear(3, 16), nn.Linear(16, 3)

    def forward(self, ligand, pocket):
        h = (torch.tanh(self.a(ligand)) * torch.tanh(self.b(pocket)).mean(1, keepdim=True)).cumsum(-1).sin()
        return h.sum((1, 2)), self.push(h)


def test_one_average_around_another_is_their_product():
    """The energy is invariant under separate motions of each cloud; the vector rotates with the ligand alone."""
    net = Docking().double()
    inner = FrameAverage(net, "SE(3)", inputs={"ligand": "scalars", "pocket": "points"})
    outer = FrameAverage(
        inner, "SE(3)", inputs={"ligand": "points", "pocket": "scalars"}, outputs={0: "scalars", 1: "vectors"}
    )
    ligand, pocket = torch.randn(4, 7, 3).double(), torch.randn(4, 9, 3).double()
    first, second = (Rotation(3).sample(torch.zeros(1, 3), torch.Generator().manual_seed(s)) for s in (1, 2))
    energy, push = outer(ligand, pocket)
    moved_energy, moved_push = outer(ligand @ first.mT + 1, pocket=pocket @ second.mT - 2)
    assert torch.allclose(energy, moved_energy, atol=1e-12)
    assert torch.allclose(push @ first.mT, moved_push, atol=1e-12)
    assert not torch.allclose(inner(ligand, pocket)[0], inner(ligand @ first.mT, pocket)[0], atol=1e-3)
