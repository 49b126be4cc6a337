"""Frames of point clouds: equivariance in every layout, degenerate clouds, exact gradients."""

import itertools
import math

import pytest
import torch

from commutant import InputError
from commutant.algebra import Clouds, pca_frame, weighted_frame
from commutant.laws import Orthogonal, Rotation

GROUPS = ("T", "O", "SO", "E", "SE")
CUBE = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)


def draw_rotation(d, seed=0, reflect=False):
    generator = torch.Generator().manual_seed(seed)
    action = Orthogonal(d) if reflect else Rotation(d)
    return action.sample(torch.zeros(1, d), generator)


def network(x):
    """Network that is invariant to the order of points but to nothing else."""
    d = x.shape[-1]
    weight = torch.sin(torch.arange(d * 24, dtype=torch.float64) * 1.7 + 0.3).reshape(d, 24).to(x)
    return torch.tanh(x @ weight + weight[0]).mean(-2).cumsum(-1).sin().sum(-1)


def averaged(x, build=pca_frame, group="SE", f=network, **options):
    frame = build(x, group, **options)
    return frame.pool(f(frame.canonicalize(x)))


def moved(x, group, seed=0):
    d = x.shape[-1]
    r = draw_rotation(d, seed, reflect=group in ("O", "E"))
    if group == "T":
        r = torch.eye(d, dtype=torch.float64)
    t = torch.linspace(-2, 5, d, dtype=torch.float64) * (group in ("T", "E", "SE"))
    return x @ r.to(x).mT + t.to(x), r, t


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("group", GROUPS)
def test_the_frame_of_a_moved_cloud_is_the_moved_frame(group, d):
    x = torch.randn(3, 7, d, dtype=torch.float64)
    y, r, t = moved(x, group, seed=d)
    first, second = pca_frame(x, group), pca_frame(y, group)
    number = {"T": 1, "O": 2**d, "E": 2**d, "SO": 2 ** (d - 1), "SE": 2 ** (d - 1)}[group]
    assert len(first) == len(second) == 3 * number
    assert torch.allclose(second.origin, first.origin @ r.mT + t, atol=1e-12)
    for cloud in range(3):
        ours = r @ first.rotation[first.cloud == cloud]
        theirs = second.rotation[second.cloud == cloud]
        if group != "T":
            distances = (ours[:, None] - theirs).abs().amax((-1, -2))
            assert float(distances.amin(1).max()) < 1e-9
            assert len(distances.argmin(1).unique()) == number
        dets = torch.linalg.det(theirs)
        assert bool((dets > 0).all()) == (group in ("T", "SO", "SE"))


@pytest.mark.parametrize("build", [pca_frame, weighted_frame])
@pytest.mark.parametrize("group", GROUPS[1:])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_canonical_clouds_are_the_same_for_all_that_the_group_makes_of_one(build, group, dtype):
    x = torch.randn(4, 9, 3, dtype=dtype)
    y, _, _ = moved(x, group)
    first, second = averaged(x, build, group), averaged(y, build, group)
    assert torch.allclose(first, second, atol=1e-12 if dtype == torch.float64 else 2e-5)
    shuffled = y[:, torch.randperm(9)]
    assert torch.allclose(first, averaged(shuffled, build, group), atol=1e-12 if dtype == torch.float64 else 2e-5)


def test_a_proper_group_keeps_mirror_images_apart():
    x = torch.randn(20, 6, 3, dtype=torch.float64)
    mirror = x * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert float((averaged(x, group="SE") - averaged(mirror, group="SE")).abs().min()) > 1e-6
    assert float((averaged(x, group="E") - averaged(mirror, group="E")).abs().max()) < 1e-12


KINDS = {
    "points": lambda x, r, t, s: s * x @ r.mT + t,
    "displacements": lambda x, r, t, s: s * x @ r.mT,
    "vectors": lambda x, r, t, s: x @ r.mT,
    "pseudovectors": lambda x, r, t, s: torch.linalg.det(r) * x @ r.mT,
    "scalars": lambda x, r, t, s: x,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_seen_and_restored_as_it_answers_to_the_group(kind):
    x = torch.randn(2, 8, 3, dtype=torch.float64)
    r, t, s = draw_rotation(3, 5, reflect=True), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), 1.7
    r = r * -torch.linalg.det(r).sign()  # one that reflects
    value = torch.randn(2, 8, 4, 3, dtype=torch.float64)
    act = KINDS[kind]
    first = pca_frame(x, "E", scale="rms", signs="skew")
    second = pca_frame(s * x @ r.mT + t, "E", scale="rms", signs="skew")
    assert len(first) == 2, "the rule must decide for this cloud"
    seen, also = first.canonicalize(value, kind), second.canonicalize(act(value, r, t, s), kind)
    assert torch.allclose(seen, also, atol=1e-10)
    assert torch.allclose(first.pool(first.restore(seen, kind)), value, atol=1e-10)
    changed = torch.sin(seen)
    ours, theirs = (f.pool(f.restore(changed, kind)) for f in (first, second))
    assert torch.allclose(act(ours, r, t, s), theirs, atol=1e-10)


def test_tensors_turn_on_both_sides():
    x, m = torch.randn(2, 8, 3, dtype=torch.float64), torch.randn(2, 8, 3, 3, dtype=torch.float64)
    y, r, _ = moved(x, "SE")
    first, second = pca_frame(x, "SE", signs="skew"), pca_frame(y, "SE", signs="skew")
    assert torch.allclose(first.canonicalize(m, "tensors"), second.canonicalize(r @ m @ r.mT, "tensors"), atol=1e-10)
    assert torch.allclose(first.pool(first.restore(first.canonicalize(m, "tensors"), "tensors")), m, atol=1e-10)


def test_stacked_masked_and_indexed_clouds_have_the_same_frames():
    sizes = [5, 1, 8, 3]
    parts = [torch.randn(n, 3, dtype=torch.float64) for n in sizes]
    batch = torch.repeat_interleave(torch.tensor(sizes))
    order = torch.randperm(len(batch))
    padded = torch.full((4, 8, 3), torch.nan, dtype=torch.float64)
    mask = torch.zeros(4, 8, dtype=torch.bool)
    for i, part in enumerate(parts):
        padded[i, : len(part)], mask[i, : len(part)] = part, True
    alone = torch.stack([averaged(part[None], f=lambda y: y[..., 0].tanh().sum(-1))[0] for part in parts])

    masked = pca_frame(padded, "SE", mask=mask)
    seen = masked.canonicalize(padded)
    kept = torch.where(mask[masked.cloud], seen[..., 0].tanh(), 0.0)
    assert torch.allclose(masked.pool(kept.sum(-1)), alone, atol=1e-12)

    ragged = torch.cat(parts)[order]
    indexed = pca_frame(ragged, "SE", batch=batch[order])
    seen = indexed.canonicalize(ragged)
    summed = indexed.copies.clouds.total(seen[..., 0].tanh())
    assert torch.allclose(indexed.pool(summed), alone, atol=1e-12)
    back = indexed.pool(indexed.restore(seen, "points"))
    assert torch.allclose(back, ragged, atol=1e-12)


def test_a_mask_of_weights_counts_points_as_often_as_it_says():
    x = torch.randn(1, 4, 3, dtype=torch.float64)
    twice = torch.cat([x, x[:, :2]], 1)
    weighted, repeated = pca_frame(x, mask=torch.tensor([[2.0, 2.0, 1.0, 1.0]])), pca_frame(twice)
    assert torch.allclose(weighted.origin, repeated.origin, atol=1e-12)
    assert torch.allclose(weighted.rotation, repeated.rotation, atol=1e-9)


def test_clouds_without_points_have_no_frame_and_a_mean_of_zero():
    x, batch = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 0, 0, 2, 2])
    frame = pca_frame(x, batch=batch, clouds=Clouds.of(x, batch, number=4))
    assert set(frame.cloud.tolist()) == {0, 2}
    pooled = frame.pool(torch.ones(len(frame), 2, dtype=torch.float64))
    assert pooled.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
    assert set(frame.sample(3).cloud.tolist()) == set(frame.best().cloud.tolist()) == {0, 2}
    nothing = pca_frame(torch.zeros(2, 0, 3))
    assert len(nothing) == 0
    assert nothing.pool(torch.ones(0, 5)).tolist() == [[0.0] * 5] * 2


def prism(n, height=0.7):
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    ring = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1)
    return torch.cat([ring, ring + torch.tensor([0.0, 0.0, height], dtype=torch.float64)])


def sphere(n):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    x = x / x.norm(dim=-1, keepdim=True)
    x = torch.cat([x, -x])
    white = torch.linalg.cholesky(torch.linalg.inv(x.mT @ x))
    return x @ white


DEGENERATE = {
    "cube": CUBE,
    "regular tetrahedron": CUBE[[0, 3, 5, 6]],
    "square": prism(4)[:4],
    "hexagonal prism": prism(6),
    "collinear": torch.linspace(-1, 2, 5, dtype=torch.float64)[:, None] * torch.tensor([[1.0, 2.0, -1.0]]).double(),
    "planar": torch.cat([torch.randn(6, 2, dtype=torch.float64), torch.zeros(6, 1, dtype=torch.float64)], 1),
    "all equal": torch.ones(4, 3, dtype=torch.float64),
    "one point": torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64),
    "two points": torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]], dtype=torch.float64),
    "centrally symmetric": torch.cat([torch.eye(3), -torch.eye(3)]).double() * torch.tensor([1.0, 1.3, 1.9]),
    "white sphere sample": sphere(8),
}


@pytest.mark.parametrize("group", ["E", "SE"])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_clouds_are_treated_exactly(name, group):
    x = DEGENERATE[name][None]
    vector = lambda y: torch.stack([network(y), network(2 * y + 1), network(y.flip(-1) - 1)], -1)  # noqa: E731
    frame = pca_frame(x, group)
    field = frame.pool(frame.restore(vector(frame.canonicalize(x)), "vectors"))
    for seed in range(4):
        y, r, _ = moved(x[:, torch.randperm(x.shape[1])], group, seed)
        assert torch.allclose(averaged(x, group=group), averaged(y, group=group), atol=1e-10)
        other = pca_frame(y, group)
        turned = other.pool(other.restore(vector(other.canonicalize(y)), "vectors"))
        assert torch.allclose(field @ r.mT, turned, atol=1e-10)


def test_plain_axes_are_not_valid_on_a_cube_and_say_so():
    y, _, _ = moved(CUBE[None], "SE", 3)
    with pytest.warns(UserWarning, match="not distinct"):
        first, second = (averaged(x, on_degenerate="warn") for x in (CUBE[None] + 1e-9 * torch.randn(8, 3).double(), y))
    assert abs(float(first - second)) > 1e-4
    with pytest.raises(InputError, match="axes of cloud 1 are not distinct"):
        pca_frame(torch.stack([torch.randn(8, 3).double() * torch.tensor([1, 2, 3]), CUBE]), on_degenerate="error")


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("base", [CUBE, prism(6), prism(5, 0.0)[:5]])
def test_the_average_is_continuous_where_plain_axes_jump(base, size):
    one, two = (base + size * torch.randn(len(base), 3, dtype=torch.float64) for _ in range(2))
    jumps = [abs(float(averaged(one[None], b) - averaged(two[None], b))) for b in (pca_frame, weighted_frame)]
    assert max(jumps) < 40 * size


def test_weights_slide_from_axes_to_tuples_and_sum_to_one():
    ring = prism(6)
    stretched = [ring * torch.tensor([1 + s, 1.0, 1.0], dtype=torch.float64) for s in (0.0, 0.004, 0.02, 0.2)]
    frames = [pca_frame(x[None], "SE") for x in stretched]
    for frame in frames:
        assert torch.allclose(frame.weight.sum(), torch.ones((), dtype=torch.float64))
    assert len(frames[0]) == 2 * 12, "a frame for each point, on both sides of the axis"
    assert len(frames[3]) == 4
    assert len(frames[1]) > 4
    assert [float(f.gap) for f in frames] == sorted(float(f.gap) for f in frames)


def energy_of(x, **options):
    return averaged(x, **options).sum()


@pytest.mark.parametrize("name", ["generic", "cube", "hexagonal prism", "near a cube"])
def test_gradients_through_the_frame_are_exact(name):
    x = {"generic": torch.randn(5, 3).double(), "near a cube": CUBE + 0.03 * torch.randn(8, 3).double()} | DEGENERATE
    x = x[name][None].clone().requires_grad_()
    assert torch.autograd.gradcheck(energy_of, (x,), atol=1e-5)
    if name == "generic":
        assert torch.autograd.gradgradcheck(energy_of, (x,), atol=1e-5)


def test_forces_are_free_of_torque_unless_the_frame_is_detached():
    x = torch.randn(1, 7, 3, dtype=torch.float64, requires_grad=True)
    (force,) = torch.autograd.grad(energy_of(x), x)
    assert float(force.sum(1).abs().max()) < 1e-14
    assert float(torch.linalg.cross(x.detach(), force).sum(1).abs().max()) < 1e-14
    frame = pca_frame(x, "SE").detach()
    (wrong,) = torch.autograd.grad(frame.pool(network(frame.canonicalize(x))).sum(), x)
    assert float(torch.linalg.cross(x.detach(), wrong).sum(1).abs().max()) > 1e-4


@pytest.mark.parametrize("change", [lambda x: x + 1e4, lambda x: x * 1e-6, lambda x: x * 1e6])
def test_single_precision_survives_shifts_and_scales(change):
    x = torch.randn(6, 10, 3, dtype=torch.float64)
    single = change(x).float()
    frame = pca_frame(single, "E", scale="rms", signs="skew")
    exact = pca_frame(single.double(), "E", scale="rms", signs="skew")
    assert len(frame) == len(exact)
    assert torch.allclose(frame.canonicalize(single).double(), exact.canonicalize(single.double()), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_points_have_frames_in_double(dtype):
    x = torch.randn(3, 10, 3).to(dtype)
    frame = pca_frame(x)
    assert frame.rotation.dtype == torch.float64
    assert frame.canonicalize(x).dtype == dtype
    assert torch.allclose(frame.canonicalize(x).double(), pca_frame(x.double()).canonicalize(x.double()), atol=0.05)


@pytest.mark.parametrize("rule", ["skew", "softskew", "maxabs"])
@pytest.mark.parametrize("group", ["E", "SE"])
def test_a_rule_of_signs_leaves_one_frame_where_it_can_tell(rule, group):
    x = torch.randn(200, 30, 3, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    frame = pca_frame(x, group, signs=rule)
    assert 200 <= len(frame) <= 250
    assert torch.allclose(averaged(x, group=group, signs=rule), averaged(moved(x, group)[0], group=group, signs=rule))
    symmetric = torch.cat([x, -x], 1)
    doubtful = pca_frame(symmetric, group, signs=rule)
    assert len(doubtful) == 200 * (8 if group == "E" else 4), "no rule can tell where the cloud is its own mirror image"
    assert float(doubtful.margin.max()) < 1e-9


def test_a_single_axis_in_doubt_costs_two_frames():
    x = torch.randn(1, 40, 3, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    x = torch.cat([x, x * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)], 1)
    assert len(pca_frame(x, "E", signs="skew")) == 2


def test_sampled_frames_are_right_on_average_and_the_best_is_the_likeliest():
    x = prism(6)[None] * torch.tensor([1.004, 1.0, 1.0], dtype=torch.float64)
    frame = pca_frame(x, "SE")
    drawn = frame.sample(40_000, torch.Generator().manual_seed(0))
    assert not drawn.exact
    assert len(drawn) == 40_000
    value = lambda f: f.pool(network(f.canonicalize(x)))  # noqa: E731
    assert abs(float(value(drawn) - value(frame))) < 0.01
    assert float(frame.weight[(frame.rotation == frame.best().rotation).all(-1).all(-1)]) == float(frame.weight.max())


def test_directions_settle_what_the_points_leave_open():
    line = torch.linspace(-1, 1.5, 4, dtype=torch.float64)[:, None] * torch.tensor([[0.0, 0.0, 1.0]]).double()
    velocity = torch.randn(4, 3, dtype=torch.float64)
    f = lambda x, v: network(torch.cat([x, v], -2) + x.sum(-2, keepdim=True).sin())  # noqa: E731

    def value(x, v):
        frame = pca_frame(x[None], "SE", directions=v[None, :, None])
        return frame.pool(f(frame.canonicalize(x[None]), frame.canonicalize(v[None], "vectors")))

    r = draw_rotation(3, 8)
    assert torch.allclose(value(line, velocity), value(line @ r.mT, velocity @ r.mT), atol=1e-12)
    one = velocity * torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    assert torch.allclose(value(line, one), value(line @ r.mT, one @ r.mT), atol=1e-12)
    still = torch.ones(4, 3, dtype=torch.float64)
    assert torch.allclose(value(still, one), value(still @ r.mT, one @ r.mT), atol=1e-12)


def test_attention_over_frames_is_invariant_too():
    x = torch.randn(3, 6, 3, dtype=torch.float64)
    y, _, _ = moved(x, "E")

    def value(x):
        frame = pca_frame(x, "E")
        out = network(frame.canonicalize(x))
        return frame.pool(out, scores=7 * out)

    assert torch.allclose(value(x), value(y), atol=1e-12)
    assert float((value(x) - averaged(x, group="E")).abs().min()) > 1e-4


def test_large_degenerate_clouds_draw_their_tuples_and_say_so():
    x = torch.cat([sphere(60)[None], torch.randn(1, 120, 3).double() * torch.tensor([1.0, 2.0, 3.0])])
    values = []
    for generator in (None, None, torch.Generator().manual_seed(1)):
        with pytest.warns(UserWarning, match="1 symmetric clouds have too many tuples"):
            frame = pca_frame(x, "SE", generator=generator)
        assert not frame.exact
        values.append(frame.pool(network(frame.canonicalize(x))))
    assert torch.equal(values[0], values[1]), "the same without a generator"
    assert abs(float(values[0][0] - values[2][0])) < 0.02
    assert float(values[0][1]) == float(values[2][1])
    cube = torch.cat([CUBE, torch.zeros(112, 3).double()])[None]
    mask = (torch.arange(120) < 8)[None].expand(2, -1)
    padded = torch.cat([cube, cube + 1])
    assert pca_frame(padded, "SE", mask=mask).exact, "what counts is the number of points, not the padding"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pca_frame(torch.randn(3)), "floating point of shape"),
        (lambda: pca_frame(torch.ones(4, 3, dtype=torch.long)), "floating point"),
        (lambda: pca_frame(torch.full((1, 4, 3), torch.nan)), "finite"),
        (lambda: pca_frame(torch.randn(4, 3), batch=torch.tensor([0, 0, 1])), "one integer per point"),
        (lambda: pca_frame(torch.randn(4, 3), batch=torch.tensor([0, 0, -1, 1])), "must lie in"),
        (lambda: pca_frame(torch.randn(2, 4, 3), mask=torch.ones(4, dtype=torch.bool)), "one entry per point"),
        (lambda: pca_frame(torch.randn(4, 3), mask=torch.tensor([1.0, -1.0, 1.0, 1.0])), "non-negative"),
        (lambda: pca_frame(torch.randn(4, 3), "SL"), "group must be"),
        (lambda: pca_frame(torch.randn(4, 3), signs="left"), "signs must be"),
        (lambda: pca_frame(torch.randn(4, 3), on_degenerate="hope"), "on_degenerate must be"),
        (lambda: pca_frame(torch.randn(4, 3), blend=(0.1, 0.1)), "smaller one first"),
        (lambda: pca_frame(torch.randn(4, 3), scale="mean"), "scale must be"),
        (lambda: pca_frame(torch.randn(4, 3), directions=torch.randn(3, 1, 3)), "k per point"),
        (lambda: weighted_frame(torch.randn(4, 3), "T"), "one frame"),
        (lambda: pca_frame(torch.randn(4, 3)).canonicalize(torch.randn(4, 2)), "must end in"),
        (lambda: pca_frame(torch.randn(2, 4, 3)).canonicalize(torch.randn(3, 4, 3)), "must begin with"),
        (lambda: pca_frame(torch.randn(4, 3)).canonicalize(torch.randn(4, 3), "bivectors"), "kind must be"),
        (lambda: pca_frame(torch.randn(4, 3)).restore(torch.randn(3, 3), "vectors"), "8 rows are needed"),
        (lambda: pca_frame(torch.randn(4, 3)).sample(0), "at least 1"),
    ],
)
def test_bad_input_is_named(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()
