"""NaN is refused by every check, since comparisons with NaN are false."""

import math

import pytest
import torch

import commutant.algebra as a
from commutant import InputError

POINTS = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
BAD = POINTS.clone()
BAD[1, 2, 0] = math.nan
LAYOUT = a.Clouds.of(POINTS)


@pytest.mark.parametrize("bad", [BAD, BAD.nan_to_num(math.inf)])
@pytest.mark.parametrize("layout", [LAYOUT, None])
@pytest.mark.parametrize(
    "make",
    [
        lambda x, layout: a.pca_frame(x, clouds=layout),
        lambda x, layout: a.pca_frame(x, clouds=layout, on_degenerate="error", signs="skew"),
        lambda x, layout: a.pca_frame(x, "T", clouds=layout),
        lambda x, layout: a.weighted_frame(x, clouds=layout),
        lambda x, layout: a.gram_schmidt_frame(x, clouds=layout),
        lambda x, layout: a.lorentz_frame(x, clouds=layout),
        lambda x, layout: a.random_frame(x, "SE", 2, clouds=layout),
        lambda x, layout: a.group_frame(x, a.signed_permutations(3), clouds=layout),
    ],
)
def test_points_that_are_no_numbers_are_refused_whatever_brings_the_layout(make, layout, bad):
    with pytest.raises(InputError, match="points must be finite"):
        make(bad, layout)


def test_points_that_do_not_fit_their_layout():
    with pytest.raises(InputError, match="do not fit a layout"):
        a.pca_frame(POINTS[:1], clouds=LAYOUT)
    with pytest.raises(InputError, match="do not fit a layout"):
        a.pca_frame(POINTS[0], clouds=a.Clouds.of(POINTS[0, :4], torch.tensor([0, 0, 1, 1])))


def test_a_masked_point_may_be_anything():
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 2] = False
    assert bool(a.pca_frame(BAD, mask=mask).rotation.isfinite().all())


def test_groups_of_no_numbers_and_of_near_duplicates():
    matrices = a.signed_permutations(3)
    for bad in (matrices * math.nan, torch.cat([matrices, matrices + 1e-8])):
        with pytest.raises(InputError, match=r"must be finite|distinct"):
            a.group_frame(POINTS, bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_graphs_are_symmetric_up_to_the_rounding_of_their_precision(dtype):
    x = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    x = ((x + x.mT) / 2).to(dtype)
    nudged = x.clone()
    nudged[0, 0, 1] *= 1 + torch.finfo(dtype).eps
    assert len(a.graph_frame(nudged)) >= 1
    nudged[0, 0, 1] *= 1.5
    with pytest.raises(InputError, match="not symmetric"):
        a.graph_frame(nudged)


def test_a_search_that_starts_from_nan():
    start = [torch.full((3, 3), 1 / 3)]
    with pytest.raises(InputError, match="value at the start is NaN"):
        a.birkhoff_ascent(lambda m: m.sum() * math.nan, start)
    with pytest.raises(InputError, match="finite square matrices"):
        a.birkhoff_ascent(lambda m: m.sum(), [start[0] * math.nan])
