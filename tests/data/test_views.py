"""Rendered views: each latent changes what it should, and nothing else does."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation as ScipyRotation
from torch import nn

from commutant import InputError
from commutant.data import Objects, draw_views, object_clouds, shapes3d, single_changes
from commutant.data._views import _albedo, _drawn_latents, _turned
from commutant.geometry import equivariance_report, quaternion_code, rotation_r2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scene():
    """Return one object of each class with latents."""
    objects = object_clouds(10, 4000, generator())
    albedo = torch.full_like(objects.points, 0.5)
    poses = _turned(torch.rand(10, 3, 3, generator=generator(1)) * 3 - 1.5)
    hues, light = torch.rand(10, 3, 2, generator=generator(2)), torch.rand(10, 3, 2, generator=generator(3)) * 0.7
    return objects.points, objects.normals, albedo, poses, hues, light


def test_angles_are_those_of_scipy_about_fixed_axes():
    angles = torch.rand(50, 3, dtype=torch.float64, generator=generator()) * 6 - 3
    expected = torch.from_numpy(ScipyRotation.from_euler("xyz", angles.numpy()).as_matrix())
    assert torch.allclose(_turned(angles), expected, atol=1e-12)


def test_pictures_are_a_function_of_the_seed_bit_for_bit():
    one, two, other = (shapes3d(object_clouds(10, 2000, generator(s)), 2, generator(s)).images for s in (5, 5, 6))
    assert torch.equal(one, two)
    assert float((one != other).float().mean()) > 0.5


def test_a_picture_depends_on_the_pose_through_the_rotation_alone(scene):
    points, normals, albedo, poses, hues, light = scene
    angles = torch.tensor(
        [0.4, math.pi / 2, 0.3], dtype=torch.float64
    )  # where two of three angles turn about the same axis
    same = torch.stack([_turned(angles), _turned(angles + angles.new_tensor([0.5, 0.0, 0.5]))]).float()
    assert torch.allclose(same[0], same[1], atol=1e-6)
    turned = [draw_views(points, normals, albedo, r.expand_as(poses), hues, light).int() for r in same]
    assert float((turned[0] != turned[1]).float().mean()) < 1e-3  # rounding at the edge of a pixel


def test_turning_the_object_or_its_cloud_is_the_same(scene):
    points, normals, albedo, poses, hues, light = scene
    turn = _turned(torch.tensor([0.3, -1.0, 2.0]))
    one = draw_views(points @ turn.mT, normals @ turn.mT, albedo, poses, hues, light).int()
    two = draw_views(points, normals, albedo, poses @ turn, hues, light).int()
    assert float(((one - two).abs() > 2).float().mean()) < 2e-3


def test_the_floor_changes_the_background_alone_and_all_of_it(scene):
    points, normals, albedo, poses, hues, light = scene
    other = hues.clone()
    other[..., 0] = (hues[..., 0] + 0.5) % 1
    # a black object, whose own pixels are known
    black = draw_views(points, normals, 0 * albedo, poses, hues, light).sum(2) == 0
    one, two = (draw_views(points, normals, albedo, poses, h, light) for h in (hues, other))
    changed = (one != two).any(2)
    assert torch.equal(changed, ~black)
    assert 0.1 < float(black.float().mean()) < 0.6


def test_the_light_is_brighter_on_what_faces_it(scene):
    points, normals, _, poses, hues, _ = scene
    above, aside = (torch.tensor(at).expand(10, 3, 2) for at in ((0.0, 0.0), (math.pi / 2, math.pi / 2)))
    identity = torch.eye(3).expand_as(poses)
    box = (points / points.abs().amax(-1, keepdim=True)) * 0.5
    up = (normals[..., 2:] > 0.9).float()
    white = up.expand_as(points)  # only what faces up is not black
    one, two = (draw_views(box, normals, white, identity, hues, at).int().sum((1, 2, 3, 4)) for at in (above, aside))
    assert bool((one > two).all())


def test_what_is_behind_is_hidden():
    """Check that a large square in front of the camera hides a small one behind it."""
    toward = torch.tensor([0.0, math.sqrt(0.5), math.sqrt(0.5)])
    right, up = torch.tensor([-1.0, 0.0, 0.0]), torch.tensor([0.0, -math.sqrt(0.5), math.sqrt(0.5)])
    steps = torch.linspace(-0.5, 0.5, 80)
    plane = (steps[:, None, None] * right + steps[None, :, None] * up).flatten(0, 1)
    x = torch.cat([plane + 0.2 * toward, 0.5 * plane - 0.2 * toward])[None]
    red, blue = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    colour = torch.cat([red.expand_as(plane), blue.expand_as(plane)])[None]
    identity, dark = torch.eye(3)[None, None], torch.tensor([[[0.0, 0.0]]])
    seen = draw_views(x, toward.expand_as(x), colour, identity, dark, dark)[0, 0, :, 12:20, 12:20]
    assert bool((seen[0] > 50).all())
    assert int(seen[2].max()) == 0
    seen = draw_views(x, toward.expand_as(x), colour.flip(1), identity, dark, dark)[0, 0, :, 12:20, 12:20]
    assert int(seen[0].max()) == 0
    hidden = draw_views(x, -toward.expand_as(x), colour, identity, dark, dark)  # turned away: nothing is seen
    assert torch.equal(hidden, draw_views(x + 99 * right, -toward.expand_as(x), colour, identity, dark, dark))


@pytest.mark.parametrize(("points", "most"), [(4096, 0.04), (16_384, 0.0)])
def test_holes_are_as_few_as_promised(points, most):
    """Check the share of background pixels inside the image of a black ball near the camera."""
    x = torch.nn.functional.normalize(torch.randn(4, points, 3, generator=generator()), dim=-1)
    identity, hues, light = torch.eye(3).expand(4, 1, 3, 3), torch.rand(4, 1, 2), torch.zeros(4, 1, 2)
    black = draw_views(0.8 * x, x, torch.zeros_like(x), identity, hues, light)[:, 0].sum(1) == 0
    place = torch.arange(32) + 0.5 - 16
    inside = (place[:, None] ** 2 + place**2).sqrt() < 12
    assert 1 - float(black[:, inside].float().mean()) <= most


def test_pairs_are_two_views_of_one_object():
    views = shapes3d(object_clouds(10, 1100, generator()), 4, generator(), size=8)
    numbered = views._replace(images=torch.arange(40).reshape(10, 4, 1, 1, 1).expand(10, 4, 3, 1, 1).to(torch.uint8))
    pairs = numbered.pairs(500, generator(1))
    first, second = pairs.first[:, 0, 0, 0].long(), pairs.second[:, 0, 0, 0].long()
    assert bool((first // 4 == second // 4).all())
    assert bool((first != second).all())
    assert torch.equal(pairs.labels, first // 4 % 10)
    assert torch.equal(pairs.poses[1], views.poses.flatten(0, 1)[second])
    assert torch.equal(pairs.hues[0], views.hues.flatten(0, 1)[first])
    assert torch.bincount(first, minlength=40).min() > 2


def test_unseen_poses_are_never_shown_otherwise():
    """Check by the unique Euler angles with a middle angle of at most a quarter turn, which separate the two sets."""
    for poses, apart in (("usual", False), ("unseen", True)):
        views = shapes3d(object_clouds(10, 64, generator()), 200, generator(), size=8, poses=poses)
        angles = abs(ScipyRotation.from_matrix(views.poses.flatten(0, 1).numpy()).as_euler("xyz"))
        far = (angles[:, [0, 2]] > math.pi / 2 + 1e-3).any(1)
        assert far.all() if apart else not far.any()


def test_angles_beyond_a_quarter_turn_about_all_axes_are_nothing_new():
    """Check that three angles between pi / 2 and pi give rotations of the usual range, which test nothing new."""
    size, sign = torch.rand(2, 300, 3, dtype=torch.float64, generator=generator())
    beyond = (math.pi / 2 + size * math.pi / 2) * torch.where(sign < 0.5, -1, 1)
    angles = abs(ScipyRotation.from_matrix(_turned(beyond).numpy()).as_euler("xyz"))
    assert angles.max() <= math.pi / 2 + 1e-6


def test_a_ball_has_no_pose_that_a_probe_could_read():
    """Check that a probe is no better than a constant on a ball of one color, which shows no rotation."""
    x = torch.nn.functional.normalize(torch.randn(60, 8000, 3, generator=generator()), dim=-1)
    ball = Objects(x, x, torch.zeros(60, 8000, dtype=torch.long), torch.zeros(60, dtype=torch.long))
    lopsided = Objects(*(t[1:2].expand(60, *t.shape[1:]) for t in object_clouds(10, 8000, generator())))
    scores = []
    for objects in (ball, lopsided):
        parts = (Objects(*(t[rows] for t in objects)) for rows in (slice(0, 40), slice(40, None)))
        train, test = (shapes3d(p, 8, generator(i), size=16).pairs(4000, generator(i)) for i, p in enumerate(parts))
        rows = [torch.cat([p.first.flatten(1), p.second.flatten(1)], 1).double() / 255 for p in (train, test)]
        train_code, test_code = quaternion_code(*train.poses).double(), quaternion_code(*test.poses).double()
        a = torch.cat([rows[0], torch.ones(4000, 1)], 1)
        weight = torch.linalg.solve(a.mT @ a + 100 * torch.eye(a.shape[1]), a.mT @ train_code)
        scores.append(rotation_r2(torch.cat([rows[1], torch.ones(4000, 1)], 1) @ weight, test_code).per_component)
    assert scores[0] < 0.02 < 0.1 < scores[1]


def test_single_changes_change_one_thing():
    changes = single_changes(object_clouds(4, 1100, generator()), 6, generator(), size=16)
    differs = {name: (c.before != c.after).any(2) for name, c in changes.items()}
    assert all(bool(d.any()) for d in differs.values())
    assert all(torch.equal(c.before, changes["pose"].before) for c in changes.values())
    # where an object is in neither picture, its pose changes nothing, and the floor everything but the object
    still, floor = ~differs["pose"], differs["floor hue"]
    assert 0.3 < float(still.float().mean()) < 0.9
    assert float(floor[still & floor].float().sum()) > 0
    corner = lambda name: differs[name][..., 0, 0].float().mean()  # noqa: E731
    assert float(corner("pose")) < 0.1 < 0.9 < float(corner("floor hue"))
    turned = changes["quarter turn"]
    for k in range(4):
        rows = turned.code.argmax(-1) == k
        assert torch.equal(turned.before[rows].rot90(k, (-2, -1)), turned.after[rows])
    assert torch.allclose(changes["pose"].code.norm(dim=-1), torch.ones(4, 6))
    assert torch.allclose(changes["floor hue"].code.norm(dim=-1), torch.ones(4, 6))


def test_the_code_of_a_change_of_pose_is_the_turn_that_was_made():
    """Check that the pose before, times the rotation of the code, draws the image after."""
    objects, g = object_clouds(3, 1100, generator()), generator(4)
    change = single_changes(objects, 5, generator(4), size=16)["pose"]
    first, _ = (_drawn_latents(3, 5, g, "usual") for _ in range(2))
    albedo = _albedo(objects, g)
    turn = torch.from_numpy(ScipyRotation.from_quat(change.code.flatten(0, 1).numpy()).as_matrix()).float()
    after = first.poses @ turn.unflatten(0, (3, 5))
    for poses, picture in ((first.poses, change.before), (after, change.after)):
        drawn = draw_views(objects.points, objects.normals, albedo, poses, first.hues, first.light, size=16)
        assert float((drawn != picture).float().mean()) < 0.01


def test_a_report_on_a_network_that_averages_pixels():
    """Check the color of the mean pixel: a quarter turn leaves it, and a hue moves it along a known circle."""
    changes = single_changes(object_clouds(60, 300, generator()), 8, generator(), size=16)
    report = equivariance_report(lambda x: x.mean((2, 3)), changes)
    assert report.movements["quarter turn"].verdict() == "invariant"
    assert report.movements["floor hue"].gain > 0.2
    assert "quarter turn" in str(report)
    corner = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    moved = equivariance_report(corner, changes).movements["quarter turn"]
    assert moved.verdict() == "equivariant, by a linear map"
    assert moved.unchanged < 0.7


def test_what_can_not_be_drawn_is_refused(unchecked):
    objects = object_clouds(2, 100, generator())
    with pytest.raises(InputError, match="need at least 1024 points"):
        shapes3d(objects, 2, generator())
    with pytest.raises(InputError, match="views must be a whole number of at least 1"):
        shapes3d(objects, 0, generator(), size=8)
    with pytest.raises(InputError, match="poses must be"):
        shapes3d(objects, 2, generator(), size=8, poses="odd")
    points, normals, albedo, poses, hues, light = (
        torch.zeros(2, *end) for end in ((64, 3),) * 3 + ((1, 3, 3), (1, 2), (1, 2))
    )
    with pytest.raises(InputError, match=r"points, normals and albedo must be \(objects, n, 3\)"):
        draw_views(points, normals, albedo, poses[:1], hues, light, size=8)
    with pytest.raises(InputError, match="must be finite"):
        draw_views(points / 0, normals, albedo, poses, hues, light, size=8)
    assert draw_views(points.double(), normals, albedo, poses.double(), hues, light, size=8).shape == (2, 1, 3, 8, 8)
    with pytest.raises(InputError, match="at least two views"):
        shapes3d(objects, 1, generator(), size=8).pairs(5, generator())
