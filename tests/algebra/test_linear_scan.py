"""Tests of linear_scan against the plain loop, forward and backward, for all structures, directions and odd lengths."""

import pytest
import torch

from commutant import InputError
from commutant.algebra import linear_scan
from commutant.algebra.linear_maps import _scan_chunks, _scan_tree

CASES = {"diagonal": ((3,), (3,)), "blocks": ((2, 2, 3), (2, 3)), "dense": ((3, 3), (3,))}


def loop(A, b, h0, structure, reverse=False):
    h, out = h0, []
    for t in range(b.shape[0])[:: -1 if reverse else 1]:
        product = {"diagonal": "bd,bd->bd", "blocks": "bijd,bjd->bid", "dense": "bij,bj->bi"}[structure]
        h = torch.einsum(product, A[t], h) + b[t]
        out.append(h)
    return torch.stack(out[:: -1 if reverse else 1])


def case(structure, length, batch=2, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    map_shape, state_shape = CASES[structure]
    A = 0.6 * torch.randn(length, batch, *map_shape, generator=g, dtype=dtype)
    return A, *(torch.randn(*lead, batch, *state_shape, generator=g, dtype=dtype) for lead in ((length,), ()))


@pytest.mark.parametrize("solve", [_scan_chunks, _scan_tree])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 31, 67, 200])
@pytest.mark.parametrize("structure", CASES)
def test_both_cores_equal_the_loop(structure, length, reverse, solve):
    A, b, h0 = case(structure, length)
    expected = loop(A, b, h0, structure, reverse)
    torch.testing.assert_close(solve(A, b, h0, structure, reverse), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("structure", CASES)
def test_gradients_of_first_and_second_order(structure, reverse):
    inputs = [t.requires_grad_() for t in case(structure, 5, batch=1)]

    def f(A, b, h0):
        return linear_scan(A, b, h0, dim=0, reverse=reverse, structure=structure)

    assert torch.autograd.gradcheck(f, inputs)
    assert torch.autograd.gradgradcheck(f, inputs)


def test_adjoint_identity():
    A, b, _h0 = case("dense", 90)
    g = torch.randn_like(b)
    forward = linear_scan(A, b, dim=0, structure="dense")
    shifted = torch.cat([A[1:].mT, torch.zeros_like(A[:1])])
    backward = linear_scan(shifted, g, dim=0, reverse=True, structure="dense")
    torch.testing.assert_close((forward * g).sum(), (b * backward).sum())


def test_vmap_and_func_grad():
    A, b, h0 = case("diagonal", 40)
    stacked = torch.stack([b, 2 * b])
    out = torch.func.vmap(lambda b: linear_scan(A, b, h0, dim=0))(stacked)
    torch.testing.assert_close(out[1], linear_scan(A, 2 * b, h0, dim=0))
    grad = torch.func.grad(lambda b: linear_scan(A, b, h0, dim=0).sum())(b)
    b.requires_grad_()
    linear_scan(A, b, h0, dim=0).sum().backward()
    torch.testing.assert_close(grad, b.grad)


def test_not_a_number_moves_forward_in_its_own_row_only():
    A, b, h0 = case("diagonal", 200)
    b[70, 1, 2] = torch.nan
    out = linear_scan(A, b, h0, dim=0).isnan()
    assert out[70:, 1, 2].all()
    assert out.sum() == 130


def test_a_product_that_overflows_leaves_zeros_alone():
    A = torch.full((1, 4096, 1), 1e3)
    b = torch.zeros(1, 4096, 1)
    b[0, -1] = 1
    assert linear_scan(A, b)[0, -1].item() == 1


def test_half_precision_is_solved_in_single():
    A, b, h0 = case("diagonal", 300, dtype=torch.float32)
    A, b, h0 = A.bfloat16(), b.bfloat16(), h0.bfloat16()
    exact = loop(A.double(), b.double(), h0.double(), "diagonal")
    torch.testing.assert_close(linear_scan(A, b, h0, dim=0), exact.bfloat16())


def test_empty_time_and_empty_batch():
    assert linear_scan(torch.ones(2, 0, 3), torch.ones(2, 0, 3)).shape == (2, 0, 3)
    assert linear_scan(torch.ones(0, 4, 3), torch.ones(0, 4, 3)).shape == (0, 4, 3)


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ((torch.ones(1, 3, 2), torch.ones(1, 4, 2)), {}, "must have shape"),
        ((torch.ones(1, 3, 2), torch.ones(1, 3, 2), torch.ones(2, 2)), {}, "h_0 must have"),
        ((torch.ones(3), torch.ones(3)), {"dim": 0}, "needs floating point b"),
        ((torch.ones(1, 3, 2), torch.ones(1, 3, 2)), {"dim": 7}, "not an axis"),
        ((torch.ones(1, 3, 2).double(), torch.ones(1, 3, 2)), {}, "share a dtype"),
        ((torch.ones(1, 3, 2), torch.ones(1, 3, 2)), {"structure": "band"}, "structure must be"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(args, options, said):
    with pytest.raises(InputError, match=said):
        linear_scan(*args, **options)
