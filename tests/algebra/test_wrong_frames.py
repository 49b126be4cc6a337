"""Messages for wrong types, ranks and numbers of frames and layouts, and limits on drawn tuples."""

import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.algebra import (
    Clouds,
    gram_schmidt_frame,
    graph_frame,
    group_frame,
    lorentz_frame,
    pca_frame,
    random_frame,
    signed_permutations,
    spectrum,
    weighted_frame,
)

X, A = torch.randn(2, 5, 3), torch.zeros(1, 4, 4)
CALLS = [
    lambda: pca_frame(X.numpy()),
    lambda: pca_frame(X.long()),
    lambda: pca_frame(X[:, :, :0]),
    lambda: pca_frame(X, 3),
    lambda: pca_frame(X, "E(3)"),
    lambda: pca_frame(X, blend=0.1),
    lambda: pca_frame(X, blend=(0.1, 0.2, 0.3)),
    lambda: pca_frame(X, tuples=0),
    lambda: pca_frame(X, tuples=1.5),
    lambda: pca_frame(X, clouds="stacked"),
    lambda: pca_frame(X, clouds=Clouds.of(X[:1])),
    lambda: pca_frame(X, generator=3),
    lambda: pca_frame(X, directions=[1.0]),
    lambda: pca_frame(X, batch=[0, 1]),
    lambda: pca_frame(X, mask=np.ones((2, 5))),
    lambda: weighted_frame(X, "T"),
    lambda: weighted_frame(X, tuples="all"),
    lambda: weighted_frame(X.to(torch.complex64)),
    lambda: pca_frame(X).sample(1.5),
    lambda: pca_frame(X).sample("one"),
    lambda: pca_frame(X).parts(0),
    lambda: pca_frame(X).canonicalize(X.numpy()),
    lambda: pca_frame(X).restore([1.0], "vectors"),
    lambda: pca_frame(X).pool(np.ones(16)),
    lambda: pca_frame(X).pool(torch.ones(16), torch.ones(3)),
    lambda: group_frame(X, "cube"),
    lambda: group_frame(X.numpy(), signed_permutations(3)),
    lambda: random_frame(X, "E", 1.5),
    lambda: random_frame(X, "Z", 2),
    lambda: random_frame([1.0], "E", 2),
    lambda: gram_schmidt_frame(X.long()),
    lambda: gram_schmidt_frame(X, "Z"),
    lambda: lorentz_frame(X.long()),
    lambda: lorentz_frame([[1.0, 0.0]]),
    lambda: signed_permutations(0),
    lambda: signed_permutations(2.0),
    lambda: graph_frame(A.numpy()),
    lambda: graph_frame(A, kind="bogus"),
    lambda: graph_frame(A, max_frames=0),
    lambda: graph_frame(A[0]),
    lambda: graph_frame(A, torch.ones(4)),
    lambda: graph_frame(A).sample(0.5),
    lambda: graph_frame(A).canonicalize(np.ones((1, 4))),
    lambda: graph_frame(A).pool(torch.ones(7)),
    lambda: Clouds.of(X, number=2),
    lambda: spectrum(X),
]


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_wrong_calls_are_refused(number, unchecked):
    with pytest.raises(InputError) as caught:
        CALLS[number]()
    assert "\n" not in str(caught.value)


def white(clouds, n):
    """Return clouds of 2 n points with equal variances, which form a block of three axes."""
    x = torch.nn.functional.normalize(torch.randn(clouds, n, 3), dim=-1).double()
    x = torch.cat([x, -x], 1)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.mT @ x)).mT


@pytest.mark.parametrize("layout", ["stacked", "masked", "indexed"])
def test_tuples_of_round_clouds_are_drawn_up_to_a_number(layout):
    x = white(3, 30)
    options = {"tuples": 20}
    if layout == "masked":
        x = torch.cat([torch.full((3, 90, 3), torch.nan).double(), x], 1)
        options["mask"] = (torch.arange(150) >= 90)[None].expand(3, -1)
    if layout == "indexed":
        options["batch"], x = torch.arange(3).repeat_interleave(60), x.flatten(0, 1)
    with pytest.warns(UserWarning, match="20 are drawn"):
        frame = pca_frame(x, "SE", **options)
    counts = torch.bincount(frame.cloud)
    assert not frame.exact
    assert int(counts.max()) <= 20
    assert int(counts.min()) >= 15, "draws fall on points, not on what the mask leaves out"
    eye = torch.eye(3).double()
    assert torch.allclose(frame.rotation.mT @ frame.rotation, eye.expand(len(frame), 3, 3), atol=1e-9)
    assert torch.allclose(torch.zeros(3).double().index_add(0, frame.cloud, frame.weight), torch.ones(3).double())


def test_drawn_tuples_estimate_the_average():
    x = white(1, 20)
    net = lambda y: (y @ torch.arange(1.0, 25.0).double().sin().reshape(3, 8)).cos().mean(1).cumsum(-1).sin().sum(-1)  # noqa: E731
    exact = pca_frame(x, "SE")
    value = float(exact.pool(net(exact.canonicalize(x))))
    spread = float(net(exact.canonicalize(x)).std())
    found = []
    for seed in range(5):
        with pytest.warns(UserWarning, match="are drawn"):
            frame = pca_frame(x, "SE", tuples=400, generator=torch.Generator().manual_seed(seed))
        found.append(float(frame.pool(net(frame.canonicalize(x)))))
    assert abs(sum(found) / 5 - value) < 0.15 * spread
