"""Randomness of wrapped networks in training, graphs of PyG as arguments, and models of images."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from commutant import InputError
from commutant.geometry import FrameAverage, ImageAverage
from commutant.laws import Rotation

R = Rotation(3).sample(torch.zeros(1, 3), torch.Generator().manual_seed(3))
X = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)).double()


class Noisy(nn.Module):
    """Network from points through a random layer to a number for each cloud."""

    def __init__(self, noise):
        super().__init__()
        self.linear, self.noise = nn.Linear(3, 8), noise

    def forward(self, x):
        return self.noise(torch.tanh(self.linear(x))).cumsum(-1).sin().sum((1, 2))


def drop_path(h):  # as in timm: whole rows of the batch are dropped
    return h * h.new_empty(len(h), 1, 1).bernoulli_(0.5)


SHARED = {
    "stochastic depth": drop_path,
    "noise": lambda h: h + torch.randn_like(h),
    "uniform noise": lambda h: h + torch.rand(h.shape, dtype=h.dtype),
    "noise of its own size": lambda h: h * torch.randn(*h.shape[:2], 1).double(),
    "exponential": lambda h: h - torch.empty_like(h).exponential_().log(),
    "a layer left out": lambda h: h if torch.rand([]) < 0.5 else h.sin(),
    "a generator": lambda h: h + torch.randn(h.shape, generator=torch.Generator().manual_seed(1)).double(),
}
NOT_SHARED = {
    "nn.GRU": nn.GRU(8, 8, 2, dropout=0.5, batch_first=True).double(),
    "nn.LSTM": nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True).double(),
    "nn.RNN": nn.RNN(8, 8, 2, dropout=0.5, batch_first=True).double(),
    "attention": nn.TransformerEncoderLayer(8, 2, 8, dropout=0.5, batch_first=True).double(),
    "gumbel": lambda h: F.gumbel_softmax(h),
    "randint": lambda h: h * torch.randint(0, 2, h.shape),
    "bernoulli of features": lambda h: h + torch.bernoulli(h.sigmoid()),
    "rrelu": nn.RReLU(),
    "other rows": lambda h: h + torch.rand(7).double().sum(),
    "numpy": lambda h: h + torch.from_numpy(__import__("numpy").random.randn(*h.shape)),
}


def values(model):
    found = []
    for x in (X, X @ R.mT + 1):
        torch.manual_seed(0)
        found.append(model(x))
    return found


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("name", SHARED)
def test_noise_with_a_row_for_each_cloud_is_shared(name, chunk):
    model = FrameAverage(Noisy(SHARED[name]).double(), chunk=chunk).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.allclose(*values(model), atol=1e-10)
    if chunk:
        whole = FrameAverage(model.net).train()
        assert torch.allclose(values(whole)[0], values(model)[0], atol=1e-10)


@pytest.mark.parametrize("name", NOT_SHARED)
def test_randomness_that_is_not_shared_is_said(name):
    noise = NOT_SHARED[name]
    first = (lambda h: noise(h)[0]) if isinstance(noise, nn.RNNBase) else noise
    model = FrameAverage(Noisy(first).double()).train()
    if isinstance(noise, nn.Module):
        noise.train()
    with pytest.warns(UserWarning, match="may differ between the frames"):
        model(X)
    model.net.noise = nn.Identity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(X)


def test_one_frame_and_evaluation_say_nothing():
    gru = nn.GRU(8, 8, 2, dropout=0.5, batch_first=True).double()
    net = Noisy(lambda h: gru(h)[0]).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FrameAverage(net, samples=1).train()(X)
        gru.eval()
        FrameAverage(net).eval()(X)


def test_edges_in_other_numbers_than_points_are_not_mistaken_for_them():
    class Edges(nn.Module):
        def forward(self, pos, edge_index, batch):
            message = F.dropout(pos[edge_index[0]].cumsum(-1).sin().sum(-1), 0.5, True)
            return message.new_zeros(int(batch.max()) + 1).index_add(0, batch[edge_index[0]], message)

    batch = torch.tensor([0] * 4 + [1] * 4)  # eight points, eight edges, three in the first cloud
    edges = torch.tensor([[0, 1, 2, 4, 5, 6, 7, 4], [1, 2, 0, 5, 6, 7, 4, 6]])
    with pytest.warns(UserWarning, match="may differ"):
        FrameAverage(Edges()).train()(torch.randn(8, 3), edges, batch)


data = pytest.importorskip("torch_geometric.data")


class OnData(nn.Module):
    """Energy and forces from one graph object, as in most networks of PyG."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3).double()

    def forward(self, data):
        source, target = data.edge_index
        h = torch.cat([data.pos, data.vel, data.z[:, None], data.u[data.batch][:, None]], -1)
        h = torch.tanh(self.linear(h)).cumsum(-1)
        h = h.index_add(0, target, h[source] * data.edge_attr)
        assert int(data.ptr[-1]) == data.num_nodes == len(data.batch)
        return {"energy": h.new_zeros(data.num_graphs).index_add(0, data.batch, h.sin().sum(-1)), "force": h}


def graphs():
    made = []
    for n in (3, 5, 2):
        edges = torch.stack([torch.arange(n), torch.arange(1, n + 1) % n])
        made.append(data.Data(pos=torch.randn(n, 3).double(), vel=torch.randn(n, 3).double(), z=torch.rand(n).double(),
                              u=torch.rand(1).double(), edge_index=edges, edge_attr=torch.rand(n, 1).double(),
                              smiles="C" * n))  # fmt: skip
    return made


@pytest.mark.parametrize("chunk", [None, 7])
def test_networks_that_take_data(chunk):
    model = FrameAverage(OnData(), "SE(3)", outputs={"force": "vectors"}, chunk=chunk)
    made = graphs()
    batch, turned = data.Batch.from_data_list(made), data.Batch.from_data_list(made)
    turned.pos, turned.vel = turned.pos @ R.mT + 2, turned.vel @ R.mT
    pos = batch.pos.clone()
    first, second = model(batch), model(turned)
    assert torch.equal(batch.pos, pos), "the given batch is unchanged"
    assert torch.allclose(first["energy"], second["energy"], atol=1e-10)
    assert torch.allclose(first["force"] @ R.mT, second["force"], atol=1e-10)
    assert first["energy"].shape == (3,)
    alone = [model(one) for one in made]
    assert torch.allclose(first["energy"], torch.cat([a["energy"] for a in alone]), atol=1e-10)
    batch.pos.requires_grad_()
    assert torch.autograd.grad(model(batch)["energy"].sum(), batch.pos)[0].isfinite().all()


def test_data_keeps_its_class_and_names_what_is_missing(unchecked):
    class Own(data.Data):
        pass

    seen = []

    class Net(nn.Module):
        def forward(self, graph):
            seen.append(graph)
            return graph.pos.new_zeros(graph.num_graphs)

    model = FrameAverage(Net(), inputs={"field": "cloud vectors"})
    model(data.Batch.from_data_list([Own(pos=torch.randn(3, 3), field=torch.randn(1, 3)) for _ in range(2)]))
    assert isinstance(seen[0], Own)
    assert isinstance(seen[0], data.Batch)
    with pytest.raises(InputError, match="needs a tensor pos"):
        model(data.Data(x=torch.randn(3, 3), field=torch.randn(1, 3)))
    with pytest.raises(InputError, match="no argument 'field'"):
        model(data.Data(pos=torch.randn(3, 3)))
    with pytest.raises(InputError, match="heterogeneous"):
        model(data.HeteroData())


def test_images_by_name_and_outputs_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
                                    image_size=8, patch_size=4, num_labels=3)  # fmt: skip
    vit = transformers.ViTForImageClassification(config).double().eval()
    x = torch.randn(2, 3, 8, 8).double()
    for chunk in (None, 3):
        model = ImageAverage(vit, "D4", chunk=chunk).eval()
        first = model(pixel_values=x, output_hidden_states=True)
        second = model(pixel_values=x.rot90(1, (-2, -1)), output_hidden_states=True)
        assert type(first) is type(vit(pixel_values=x))
        assert torch.allclose(first.logits, second.logits, atol=1e-12)
        assert torch.allclose(first.hidden_states[1], second.hidden_states[1], atol=1e-12)
        assert torch.allclose(first.logits, model(x).logits, atol=1e-12)
        assert not torch.allclose(first.logits, vit(pixel_values=x).logits, atol=1e-6)


def test_outputs_of_images_in_tuples(unchecked):
    class Two(nn.Module):
        def forward(self, x, *, scale=1.0):
            h = (x * scale).cumsum(-1).sin()
            return h, [h[:, :1].cumsum(-2)], None

    x = torch.randn(2, 2, 5, 5).double()
    model = ImageAverage(Two(), outputs="images")
    first, second = model(x, scale=2.0), model(x.flip(-1), scale=2.0)
    assert torch.allclose(first[0].flip(-1), second[0], atol=1e-12)
    assert torch.allclose(first[1][0].flip(-1), second[1][0], atol=1e-12)
    assert first[2] is None
    for net, words in ((lambda x: "text", "a row for each image"), (lambda x: x.argmax(1), "real and complex")):
        with pytest.raises(InputError, match=words):
            ImageAverage(net)(x)
    with pytest.raises(InputError, match="the only such argument"):
        ImageAverage(Two())(x=x, y=x)
