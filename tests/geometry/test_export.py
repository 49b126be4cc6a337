"""Frame averages under torch.export: fixed and dynamic numbers of points and clouds, including symmetric clouds."""

import io
import itertools

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.geometry import FrameAverage
from commutant.laws import Rotation
from depth import chosen

CUBE = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
R = Rotation(3).sample(torch.zeros(1, 3), torch.Generator().manual_seed(3))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def forward(self, x):
        h = self.net(x)
        return h + h.mean(1, keepdim=True).cumsum(-1).sin()


WAYS = {
    "E(3)": {},
    "weighted": {"frames": "weighted"},
}


def clouds():
    line = torch.zeros(8, 3).double()
    line[:, 2] = torch.linspace(-1, 2, 8)
    made = [torch.randn(8, 3).double() * torch.tensor([3.0, 2, 1]), torch.randn(8, 3).double(), CUBE @ R.mT + 1,
            line @ R.mT, CUBE * torch.tensor([1.0, 1.004, 2.0]), torch.ones(8, 3).double()]  # fmt: skip
    return torch.stack(made)


@pytest.mark.parametrize("way", chosen(WAYS, ["weighted"]))
def test_exported_averages_give_the_same(way, unchecked):
    model = FrameAverage(Net(), outputs="vectors", **WAYS[way]).eval()
    number, points = torch.export.Dim("number", min=2), torch.export.Dim("points", min=3)
    program = torch.export.export(model, (torch.randn(3, 5, 3).double(),), dynamic_shapes=(({0: number, 1: points},),))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    exported = torch.export.load(file).module()
    for x in (clouds(), clouds()[:2, :6], torch.randn(4, 11, 3).double()):
        assert torch.allclose(exported(x), model(x), atol=1e-9)


def test_a_fixed_shape_and_a_mask(unchecked):
    class Masked(Net):
        def forward(self, x, mask):
            return torch.where(mask[..., None], self.net(x), 0.0).sum(1).cumsum(-1).sin()

    model = FrameAverage(Masked(), "E(3)").eval()
    x, mask = clouds(), torch.rand(6, 8) > 0.3
    mask[:, 0] = True
    exported = torch.export.export(model, (x, mask)).module()
    for m in (mask, torch.ones_like(mask)):
        assert torch.allclose(exported(x, m), model(x, m), atol=1e-9)


def test_what_cant_be_exported_says_so(unchecked):
    x, batch = torch.randn(6, 3).double(), torch.tensor([0, 0, 0, 1, 1, 1])
    for model, args, words in (
        (FrameAverage(Net(), on_degenerate="error").eval(), (x[None],), "can't be exported"),
        (FrameAverage(nn.Linear(4, 4), "E(4)").eval(), (torch.randn(2, 6, 4),), "up to 3 dimensions"),
        (FrameAverage(Net(), "SE(3)", samples=1).train(), (x[None],), "eval"),
    ):
        with pytest.raises(InputError, match=words):
            torch.export.export(model, args)
    with pytest.raises(InputError, match="only stacked clouds"):
        torch.export.export(FrameAverage(Net()).eval(), (x,), {"batch": batch})
