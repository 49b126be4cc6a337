"""Transforms of PyTorch Geometric."""

import pytest
import torch

from commutant import InputError
from commutant.geometry import InvariantCoordinates, StochasticFrame
from commutant.laws import Orthogonal

data = pytest.importorskip("torch_geometric.data")
R = Orthogonal(3).sample(torch.zeros(1, 3), torch.Generator().manual_seed(1)).float()


def graph(pos):
    return data.Data(pos=pos, edge_index=torch.tensor([[0, 1], [1, 2]]))


def test_a_drawn_pose_leads_back_and_is_one_of_the_frame():
    pos = torch.randn(6, 3)
    seen = set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        found = StochasticFrame("E", generator)(graph(pos))
        back = found.fa_pos @ found.fa_rot[0].mT + pos.mean(0)
        assert torch.allclose(back, pos, atol=1e-5)
        other = StochasticFrame("E", torch.Generator().manual_seed(seed))(graph(pos @ R.mT + 3))
        assert torch.allclose(found.fa_pos.abs(), other.fa_pos.abs(), atol=1e-4)
        seen.add(tuple(found.fa_pos[0].sign().tolist()))
    assert len(seen) == 8


def test_invariant_coordinates_of_a_graph():
    pos = torch.randn(9, 3).exp() * torch.tensor([3.0, 2.0, 1.0])
    one, two = (InvariantCoordinates()(graph(x)).pos for x in (pos, pos @ R.mT - 4))
    assert torch.allclose(one, two, atol=1e-3)
    assert torch.allclose(torch.pdist(one), torch.pdist(pos), atol=1e-3)
    with pytest.raises(InputError, match="no tensor pos"):
        InvariantCoordinates()(data.Data(x=torch.zeros(2, 1)))
