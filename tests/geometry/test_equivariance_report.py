"""Tests of the equivariance report: it tells invariant, equivariant and irregular features apart on any model."""

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from commutant import InputError
from commutant.geometry import Change, equivariance_report, quaternion_code


def turned_clouds(objects=60, views=10, seed=0):
    """Return flattened clouds of five points before and after a rotation, with its matrix as the code."""
    g = torch.Generator().manual_seed(seed)
    shape = torch.randn(objects, 1, 5, 3, generator=g)
    draw = lambda s: torch.tensor(Rotation.random(objects * views, random_state=s).as_matrix()).float()  # noqa: E731
    before, turn = (draw(s).reshape(objects, views, 3, 3) for s in (seed + 1, seed + 2))
    x = shape @ before.mT
    return Change(x.flatten(2), (x @ turn.mT).flatten(2), turn.flatten(2)), before, turn


class Lengths(nn.Module):
    """All pairwise distances, which no rotation changes."""

    def forward(self, x):
        x = x.unflatten(-1, (5, 3))
        return torch.cdist(x, x).flatten(1)


class Hash(nn.Module):
    """Irregular features, whose movement no linear map predicts."""

    def forward(self, x):
        return torch.sin(200 * x @ torch.linspace(-1, 1, 15 * 15).reshape(15, 15))


def test_three_kinds_of_features_get_their_names():
    change, _, _ = turned_clouds()
    verdicts = {}
    for name, model in {"invariant": Lengths(), "equivariant": nn.Identity(), "neither": Hash()}.items():
        movement = equivariance_report(model, {"turn": change}).movements["turn"]
        verdicts[name] = movement
    assert verdicts["invariant"].verdict() == "invariant"
    assert abs(verdicts["invariant"].gain) < 1e-3
    assert verdicts["equivariant"].verdict() == "equivariant, by a linear map"
    assert verdicts["equivariant"].with_code > 0.999
    assert verdicts["equivariant"].unchanged < 0
    assert verdicts["equivariant"].found.mrr == 1.0
    assert verdicts["neither"].verdict() == "moves, but not linearly"
    assert verdicts["neither"].with_code < 0.1


def test_half_and_half_is_partly():
    change, _, _ = turned_clouds()
    both = lambda x: torch.cat([x, Hash()(x)], -1)  # noqa: E731
    assert equivariance_report(both, {"turn": change}).movements["turn"].verdict() == "partly equivariant"


def test_a_change_that_is_always_the_same_may_be_linear():
    x = torch.randn(40, 8, 5, generator=torch.Generator().manual_seed(0))
    movement = equivariance_report(nn.Identity(), {"flip": Change(x, x.flip(-1), torch.ones(40, 8, 1))}).movements[
        "flip"
    ]
    assert movement.verdict() == "equivariant, by a linear map"


def test_noise_is_not_taken_for_a_rule():
    """Features before and after are independent of each other and of the code, for few objects."""
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        before, after, code = (torch.randn(12, 3, d, generator=g) for d in (6, 6, 3))
        movement = equivariance_report(nn.Identity(), {"noise": Change(before, after, code)}).movements["noise"]
        assert movement.verdict() == "moves, but not linearly"


def test_a_loud_invariant_feature_does_not_hide_the_others():
    change, _, _ = turned_clouds()
    both = lambda x: torch.cat([x, 30 * x.unflatten(-1, (5, 3)).norm(dim=-1)], -1)  # noqa: E731
    assert equivariance_report(both, {"turn": change}).movements["turn"].verdict() == "equivariant, by a linear map"


def test_objects_that_are_measured_have_no_part_in_the_fit():
    """Each object has its own map, which only its own samples reveal, so that a leak of held-out objects would show."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 8, 4, generator=g)
    maps = torch.randn(40, 4, 4, generator=g)
    after = torch.einsum("oij,ovj->ovi", maps, x)
    code = torch.nn.functional.one_hot(torch.arange(40), 40).float()[:, None].expand(40, 8, 40)
    movement = equivariance_report(nn.Identity(), {"own": Change(x, after, code)}).movements["own"]
    assert movement.with_code < 0.2


def test_components_are_those_that_are_kept_and_bytes_become_shares():
    """Two equal features move by one rule and a third does not: the first component contains the two alone."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 40, 8, 1, generator=g)
    x, noise = torch.cat([a, a, b], -1), torch.randn(40, 8, 1, generator=g)
    change = Change(x, torch.cat([-a, -a, noise], -1), torch.ones(40, 8, 1))
    one, all_three = (
        equivariance_report(nn.Identity(), {"c": change}, components=k).movements["c"].with_code for k in (1, 3)
    )
    assert one > 0.99
    assert all_three < 0.8
    seen = []
    x = torch.full((8, 2, 3, 4, 4), 255, dtype=torch.uint8)
    x[:4] = 0
    equivariance_report(
        lambda v: (seen.append(float(v.max())), v)[1], {"c": Change(x, x.flip(-1), torch.ones(8, 2, 1))}
    )
    assert max(seen) == 1.0


def test_a_code_that_says_nothing_gains_nothing():
    change, _, _ = turned_clouds()
    noise = torch.randn(change.code.shape, generator=torch.Generator().manual_seed(3))
    movement = equivariance_report(nn.Identity(), {"turn": change._replace(code=noise)}).movements["turn"]
    assert movement.gain < 0.02


def test_a_pose_in_quaternions_moves_linearly_in_the_quaternion():
    _, before, turn = turned_clouds()
    embed = lambda r: quaternion_code(r)  # noqa: E731
    shape = (*before.shape[:2], 3, 3)
    after = before @ turn
    change = Change(before.reshape(shape), after.reshape(shape), quaternion_code(turn))
    # the sign of the code of a pose is a convention, so products of two are looked at
    pose = lambda r: (embed(r)[:, :, None] * embed(r)[:, None]).flatten(1)  # noqa: E731
    code = (change.code[..., :, None] * change.code[..., None, :]).flatten(-2)
    movement = equivariance_report(pose, {"turn": change._replace(code=code)}).movements["turn"]
    assert movement.with_code > 0.99


def test_models_of_pictures_as_they_come():
    transformers = pytest.importorskip("transformers")
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (8, 4, 3, 16, 16), generator=g, dtype=torch.uint8)
    changes = {"flip": Change(x, x.flip(-1), torch.ones(8, 4, 1))}
    vit = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=16,
            patch_size=4,
        )
    ).train()
    report = equivariance_report(vit, changes)
    assert report.features == 16
    assert vit.training  # left as it was
    assert report.movements["flip"].gain == pytest.approx(0.0, abs=0.01)  # always the same, so nothing to know
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 4), nn.BatchNorm1d(4)).train()
    net[2].eval()
    equivariance_report(net, changes)
    assert (net[0].training, net[2].training) == (True, False)
    assert int(net[2].num_batches_tracked) == 0
    maps = equivariance_report(nn.Conv2d(3, 5, 3), changes)
    assert maps.features == 5
    assert equivariance_report(lambda x: x, changes).movements["flip"].verdict() == "invariant"  # a mean over maps
    assert equivariance_report(nn.Flatten(), changes).movements["flip"].unchanged < 0
    assert "flip" in str(maps)


def test_bad_input_is_named(unchecked):
    change, _, _ = turned_clouds(8, 3)
    with pytest.raises(InputError, match="at least one kind"):
        equivariance_report(nn.Identity(), {})
    with pytest.raises(InputError, match="turn: at least 8 objects of 2 views"):
        equivariance_report(nn.Identity(), {"turn": Change(*(t[:3] for t in change))})
    with pytest.raises(InputError, match="turn: before and after must both be"):
        equivariance_report(nn.Identity(), {"turn": change._replace(code=change.code[:, :2])})
    with pytest.raises(InputError, match="codes must be finite"):
        equivariance_report(nn.Identity(), {"turn": change._replace(code=change.code / 0)})
    with pytest.raises(InputError, match="components must be a whole number of at least 1"):
        equivariance_report(nn.Identity(), {"turn": change}, components=0)
    with pytest.raises(InputError, match="never vary"):
        equivariance_report(lambda x: torch.ones(len(x), 3), {"turn": change})
    with pytest.raises(InputError, match="finite row"):
        equivariance_report(lambda x: x / 0 * 0, {"turn": change})
    with pytest.raises(InputError, match="one finite row"):
        equivariance_report(lambda x: x[:1], {"turn": change})
    with pytest.raises(InputError, match="must give features, maps or tokens"):
        equivariance_report(lambda x: "features", {"turn": change})
