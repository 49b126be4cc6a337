"""Values of points, clouds and edges are distinguished by shape, or by kind where their numbers coincide."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import pca_frame
from commutant.geometry import FrameAverage, LatentFrameAverage
from commutant.laws import Rotation

R = Rotation(3).sample(torch.zeros(1, 3), torch.Generator().manual_seed(3))
BATCH = torch.tensor([0, 0, 2])  # three points and three clouds, the second without points


class Charged(nn.Module):
    """Energy of each cloud from its points, and from a charge and a field of each cloud or point."""

    def __init__(self, of_clouds):
        super().__init__()
        self.of_clouds = of_clouds

    def forward(self, pos, charge, field, batch):
        if self.of_clouds:
            charge, field = charge[batch], field[batch]
        energy = (pos.cumsum(-1).sin() * (1 + charge[:, None]) + (pos * field).cos()).sum(-1)
        return energy.new_zeros(int(batch.max()) + 1).index_add(0, batch, energy)


def given(of_clouds):
    level = "cloud" if of_clouds else "point"
    kinds = {"charge": f"{level} scalars", "field": f"{level} vectors"}
    return FrameAverage(Charged(of_clouds), "SE(3)", inputs=kinds)


@pytest.mark.parametrize("of_clouds", [True, False])
def test_a_kind_says_whose_values_they_are_where_counts_coincide(of_clouds):
    pos, field = torch.randn(3, 3).double(), torch.randn(3, 3).double()
    charge = torch.tensor([1.0, -2.0, 3.0]).double()
    model = given(of_clouds)
    found = model(pos, charge, field, BATCH)
    rows = (slice(0, 1), slice(2, 3)) if of_clouds else (slice(0, 2), slice(2, 3))
    alone = [
        model(pos[p], charge[r], field[r], torch.zeros(len(pos[p]), dtype=torch.long))
        for p, r in zip((slice(0, 2), slice(2, 3)), rows, strict=True)
    ]
    assert torch.allclose(found[[0, 2]], torch.cat(alone), atol=1e-10)
    assert float(found[1]) == 0
    assert torch.allclose(found, model(pos @ R.mT + 1, charge, field @ R.mT, BATCH), atol=1e-10)


@pytest.mark.parametrize("inputs", [None, {"charge": "scalars", "field": "cloud vectors"}, {"field": "vectors"}])
def test_coinciding_counts_without_a_kind_are_refused(inputs, unchecked):
    model = FrameAverage(Charged(True), "SE(3)", inputs=inputs)
    with pytest.raises(InputError, match="number of points and of clouds; set its kind"):
        model(torch.randn(3, 3), torch.ones(3), torch.randn(3, 3), BATCH)


def test_one_point_a_cloud_needs_no_kind_in_order():
    model, args = FrameAverage(Charged(True), "SE(3)"), (torch.randn(3, 3), torch.ones(3), torch.zeros(3, 3))
    assert model(*args, torch.arange(3)).shape == (3,)
    with pytest.raises(InputError, match="set its kind"):
        model(*args, torch.tensor([1, 0, 2]))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"charge": "cloud scalars"}, "charge must have 2 rows"),
        ({"field": "cloud vectors"}, "field must have 2 rows"),
        ({"field": "cloud bivectors"}, "kind must be one of"),
        ({"field": "edge vectors"}, "kind must be one of"),
        ({"field": 3}, "kind must be one of"),
    ],
)
def test_rows_that_do_not_fit_the_kind_are_refused(inputs, words, unchecked):
    with pytest.raises(InputError, match=words):
        FrameAverage(Charged(False), "SE(3)", inputs=inputs)(
            torch.randn(4, 3), torch.ones(4), torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
        )


class Both(nn.Module):
    def forward(self, pos, batch):
        h = pos.cumsum(-1).sin()
        return {"force": h, "energy": h.new_zeros(int(batch.max()) + 1).index_add(0, batch, h.sum(-1))}


@pytest.mark.parametrize("batch", [[0, 2], [1, 0]])
def test_outputs_of_clouds_of_one_point_each(batch, unchecked):
    pos, batch = torch.randn(2, 3).double(), torch.tensor(batch)
    kinds = {"force": "point vectors", "energy": "cloud scalars"}
    out = FrameAverage(Both(), "O(3)", outputs=kinds)(pos, batch)
    assert out["force"].shape == (2, 3)
    assert out["energy"].shape == (int(batch.max()) + 1,)
    for i in range(2):
        one = FrameAverage(Both(), "O(3)", outputs=kinds)(pos[i : i + 1], torch.zeros(1, dtype=torch.long))
        assert torch.allclose(out["force"][i], one["force"][0], atol=1e-10)
        assert torch.allclose(out["energy"][batch[i]], one["energy"][0], atol=1e-10)
    with pytest.raises(InputError, match="say whether they belong to points or clouds"):
        FrameAverage(Both(), "O(3)", outputs={"force": "vectors"})(pos, batch)
    frame = pca_frame(pos, batch=batch)
    with pytest.raises(InputError, match="say whether"):
        frame.pool(torch.ones(len(frame)))
    assert frame.pool(torch.ones(len(frame)), per_cloud=True).shape == (int(batch.max()) + 1,)
    with pytest.raises(InputError, match="one per frame"):
        pca_frame(torch.randn(3, 3), batch=BATCH).pool(torch.ones(24, 1), per_cloud=True)


def test_a_mask_does_not_hide_values_of_clouds():
    class Anchored(nn.Module):
        def forward(self, x, anchors, mask):
            return torch.where(mask[..., None], (x.sin() * anchors.sum(1, keepdim=True)).cumsum(-1), 0.0).sum((1, 2))

    x, mask = torch.randn(2, 4, 3).double(), torch.tensor([[True, True, True, False], [True] * 4])
    for k in (2, 4):
        anchors = torch.randn(2, k, 3).double()
        model = FrameAverage(Anchored(), "SE(3)", inputs={"anchors": "cloud vectors"})
        assert torch.allclose(model(x, anchors, mask), model(x @ R.mT, anchors @ R.mT, mask), atol=1e-10)
        alone = model(x[:1, :3], anchors[:1], mask[:1, :3])
        assert torch.allclose(model(x, anchors, mask)[:1], alone, atol=1e-10)


def test_names_of_edges_are_edge_scalars():
    class Weighted(nn.Module):
        def forward(self, pos, edge_index, edge_weight, batch):
            far = (pos[edge_index[0]] - pos[edge_index[1]]).cumsum(-1).sin().sum(-1) * edge_weight
            return far.new_zeros(int(batch.max()) + 1).index_add(0, batch[edge_index[0]], far)

    batch = torch.tensor([0, 0, 0, 1, 1])
    edges = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 0, 4, 3]])  # as many as points
    pos, weight, order = torch.randn(5, 3).double(), torch.rand(5).double(), torch.tensor([3, 0, 4, 1, 2])
    model = FrameAverage(Weighted(), "SE(3)")
    assert torch.allclose(model(pos, edges, weight, batch), model(pos @ R.mT, edges[:, order], weight[order], batch))


def test_layers_of_clouds_of_one_point_each():
    class Layer(nn.Module):
        def forward(self, h, edge_index):
            return h.sin()

    net = LatentFrameAverage(nn.Linear(3, 6), [Layer(), Layer()], nn.Linear(6, 3))
    pos, none = torch.randn(3, 3), torch.zeros(2, 0, dtype=torch.long)
    found = net(pos, edge_index=none, batch=torch.tensor([2, 0, 1]))
    assert torch.allclose(found[0], net(pos[:1], edge_index=none)[0], atol=1e-5)
