"""Predictors that are group representations by construction, compared with the unconstrained one."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from commutant import InputError
from commutant.geometry import (
    HyperPredictor,
    OrthogonalPredictor,
    QuaternionPredictor,
    quaternion_code,
    quaternion_product,
    rotation_vector_code,
)


def matrices(rotations):
    return torch.tensor(rotations.as_matrix())


def test_the_product_of_quaternions_is_that_of_scipy():
    one, two = (Rotation.random(100, random_state=s) for s in (0, 1))
    mine = quaternion_product(*(torch.tensor(r.as_quat()) for r in (one, two)))
    assert torch.allclose(mine, torch.tensor((one * two).as_quat()), atol=1e-12) or torch.allclose(
        (mine * torch.tensor((one * two).as_quat())).sum(-1).abs(), torch.ones(100).double()
    )


def test_rotation_vectors_are_those_of_scipy_also_when_small():
    vectors = np.random.default_rng(0).normal(size=(200, 3))
    vectors *= np.logspace(-9, 0.3, 200)[:, None] / np.linalg.norm(vectors, axis=1, keepdims=True)
    mine = rotation_vector_code(matrices(Rotation.from_rotvec(vectors)))
    assert np.allclose(mine.numpy(), vectors, rtol=1e-6, atol=1e-9)
    assert torch.equal(rotation_vector_code(torch.eye(3)), torch.zeros(3))


def test_a_representation_that_holds_the_pose_moves_as_predicted():
    """Quaternions of poses, as groups of four features, move as the predictor says, up to sign."""
    first, turn = (Rotation.random(50, random_state=s) for s in (2, 3))
    poses = [quaternion_code(matrices(r)) for r in (first, first * turn)]
    code = quaternion_code(matrices(first), matrices(first * turn))
    predicted = QuaternionPredictor(4)(poses[0], code)
    assert torch.allclose((predicted * poses[1]).sum(-1).abs(), torch.ones(50).double(), atol=1e-9)
    z = torch.randn(50, 12, dtype=torch.float64)
    moved = QuaternionPredictor(12)(z, code)
    assert torch.allclose(moved.norm(dim=1), z.norm(dim=1))
    assert torch.allclose(moved[:, 4:8], QuaternionPredictor(4)(z[:, 4:8], code))


@pytest.mark.parametrize("make", [lambda: QuaternionPredictor(16), lambda: OrthogonalPredictor(16, 4, block=8)])
def test_the_map_is_its_matrix_and_orthogonal(make):
    torch.manual_seed(0)
    predictor = make().double()
    z, g = torch.randn(7, 16).double(), torch.nn.functional.normalize(torch.randn(7, 4).double(), dim=1)
    matrix = predictor.matrix(g)
    assert torch.allclose((matrix @ z[..., None]).squeeze(-1), predictor(z, g))
    assert torch.allclose(matrix @ matrix.mT, torch.eye(16).double().expand(7, 16, 16), atol=1e-12)


def test_opposite_codes_undo_each_other_and_gradients_are_right():
    torch.manual_seed(0)
    predictor = OrthogonalPredictor(8, 3, block=4).double()
    z, g = torch.randn(5, 8).double(), torch.randn(5, 3).double()
    assert torch.allclose(predictor(predictor(z, g), -g), z, atol=1e-12)
    assert torch.equal(predictor(z, torch.zeros_like(g)), z)
    assert torch.autograd.gradcheck(predictor, (z.requires_grad_(), g.requires_grad_()))


@pytest.mark.deep
def test_it_learns_turns_that_the_free_predictor_learns_only_near_its_samples():
    """Trained on rotations by angles up to one half, the exponential extrapolates to two, and a linear map does not."""
    torch.manual_seed(0)
    axis = torch.tensor([0.6, 0.0, 0.8])
    exact = lambda angle: matrices(Rotation.from_rotvec((angle[:, None] * axis).numpy())).float()  # noqa: E731
    errors = {}
    for name, predictor in {
        "exponential": OrthogonalPredictor(3, 1, block=3),
        "free": HyperPredictor(3, 1, hyper_bias=True),
    }.items():
        optimizer = torch.optim.Adam(predictor.parameters(), lr=0.02)
        for _ in range(400):
            angle, z = torch.rand(64) - 0.5, torch.randn(64, 3)
            loss = (predictor(z, angle[:, None]) - (exact(angle) @ z[..., None]).squeeze(-1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        z, far = torch.randn(200, 3), torch.full((200,), 2.0)
        with torch.no_grad():
            errors[name] = float(
                (predictor(z, far[:, None]) - (exact(far) @ z[..., None]).squeeze(-1)).norm(dim=1).mean()
            )
    assert errors["exponential"] < 0.05
    assert errors["free"] > 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_keep_lengths(dtype):
    torch.manual_seed(0)
    predictor = OrthogonalPredictor(32, 3)
    z, g = torch.randn(6, 32), torch.randn(6, 3)
    with torch.autocast("cpu", dtype):
        out = predictor(z, g)
        out.float().square().sum().backward()
    assert torch.allclose(out.float(), predictor(z, g), atol=0.05)
    assert bool(predictor.weight.grad.isfinite().all())
    half = predictor.to(dtype)(z.to(dtype), g.to(dtype))
    assert half.dtype == dtype
    assert torch.allclose(half.float().norm(dim=1), z.norm(dim=1), rtol=0.02)


def test_codes_of_any_size_turn_alike():
    z, g = torch.randn(3, 8), torch.randn(3, 4)
    expected = QuaternionPredictor(8)(z, g)
    for size in (1e-25, 1e20):
        assert torch.allclose(QuaternionPredictor(8)(z, size * g), expected, atol=1e-5)
    zero = torch.zeros(3, 4, requires_grad=True)
    QuaternionPredictor(8)(z, zero).sum().backward()
    assert bool(zero.grad.isfinite().all())


def test_bad_input_is_named(unchecked):
    with pytest.raises(InputError, match=r"g must be \(batch, 3\), got \(3,\)"):
        OrthogonalPredictor(8, 3).matrix(torch.randn(3))
    assert OrthogonalPredictor(8, 3).matrix(torch.zeros(0, 3)).shape == (0, 8, 8)
    with pytest.raises(InputError, match=r"quaternions must be \(..., 4\)"):
        quaternion_product(torch.randn(3), torch.randn(4))
    with pytest.raises(InputError, match=r"rotations must be finite and \(..., 3, 3\), got \(3,\)"):
        rotation_vector_code(torch.randn(3), torch.randn(3))
    with pytest.raises(InputError, match="multiple of 4, got 6"):
        QuaternionPredictor(6)
    with pytest.raises(InputError, match="block must divide features"):
        OrthogonalPredictor(10, 3, block=4)
    with pytest.raises(InputError, match=r"z must be \(batch, 8\)"):
        QuaternionPredictor(8)(torch.randn(3, 8), torch.randn(2, 4))
