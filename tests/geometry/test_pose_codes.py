"""Codes of rotations and hues, and metrics with their chance levels."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from commutant import InputError
from commutant.geometry import hue_code, pose_error, quaternion_code, retrieval, rotation_r2


def test_quaternions_agree_with_scipy_everywhere():
    turns = Rotation.random(500, random_state=0)
    halves = Rotation.from_rotvec(np.pi * np.eye(3))
    for rotations in (turns, halves, Rotation.identity(2)):
        mine = quaternion_code(torch.tensor(rotations.as_matrix()))
        theirs = torch.tensor(rotations.as_quat())
        assert float((1 - (mine * theirs).sum(-1).abs()).abs().max()) < 1e-9
        assert float(mine[:, 3].min()) > -1e-9
    single = quaternion_code(torch.tensor(turns.as_matrix()).float())
    assert single.dtype == torch.float32


def test_the_code_of_two_poses_is_the_turn_of_the_body():
    first, turn = (Rotation.random(50, random_state=s) for s in (1, 2))
    second = first * turn
    code = quaternion_code(*(torch.tensor(r.as_matrix()) for r in (first, second)))
    expected = torch.tensor(turn.as_quat(canonical=True))
    assert float((1 - (code * expected).sum(-1).abs()).abs().max()) < 1e-9
    same = torch.tensor(first.as_matrix())
    assert torch.allclose(quaternion_code(same, same), torch.tensor([0.0, 0, 0, 1]).double().expand(50, 4), atol=1e-7)


def test_hues_go_the_short_way_round():
    first, second = torch.tensor([0.1, 0.9, 0.2]), torch.tensor([0.9, 0.1, 0.3])
    assert torch.allclose(hue_code(first, second), torch.tensor([-0.2, 0.2, 0.1]))


def test_a_constant_answer_gets_credit_by_the_published_formula_alone():
    code = quaternion_code(torch.tensor(Rotation.random(4000, random_state=0).as_matrix()))
    constant = code.mean(0).expand_as(code)
    score = rotation_r2(constant, code)
    assert abs(score.pooled - score.pooled_constant) < 1e-9
    assert score.pooled_constant > 0.1
    assert abs(score.per_component) < 1e-9
    assert rotation_r2(code, code).per_component == 1


def test_retrieval_and_its_chance():
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(400, 16, 32, generator=generator)
    perfect = retrieval(views, views)
    assert perfect.mrr == 1
    assert set(perfect.hits.values()) == {1.0}
    blind = retrieval(torch.randn(400, 16, 32, generator=generator), views)
    assert abs(blind.mrr - blind.mrr_chance) < 0.02
    assert all(abs(blind.hits[k] - blind.hits_chance[k]) < 0.03 for k in (1, 5, 10))
    assert 0 < blind.hits[1] <= blind.mrr <= 1
    assert blind.hits[1] <= blind.hits[5] <= blind.hits[10]


def test_pose_error():
    generator = torch.Generator().manual_seed(0)
    poses = quaternion_code(torch.tensor(Rotation.random(2000, random_state=0).as_matrix()))
    embeddings = torch.randn(2000, 8, generator=generator)
    assert pose_error(embeddings, embeddings, poses, -poses) < 1e-9
    order = torch.randperm(2000, generator=generator)
    assert abs(pose_error(embeddings[order], embeddings, poses, poses) - 0.75) < 0.03


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: quaternion_code(torch.ones(3, 3)), "orthogonal"),
        (lambda: quaternion_code(-torch.eye(3)), "determinant one"),
        (lambda: quaternion_code(torch.eye(2)), "must be finite and"),
        (lambda: rotation_r2(torch.randn(3, 4), torch.randn(4, 4)), "must both be"),
        (lambda: retrieval(torch.randn(3, 4, 2), torch.randn(3, 5, 2)), "must have the same"),
    ],
)
def test_bad_input_is_named(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()


def test_what_can_not_be_told_apart_is_found_as_by_chance():
    same = retrieval(torch.ones(3, 5, 4), torch.ones(3, 5, 4), at=(1, 2))
    assert same.mrr == pytest.approx(same.mrr_chance)
    assert same.hits == pytest.approx(same.hits_chance)
    twins = torch.eye(4).repeat_interleave(2, 0)[None]  # each view has an equal one
    found = retrieval(twins, twins, at=(1, 2))
    assert found.mrr == pytest.approx(0.75)
    assert found.hits == pytest.approx({1: 0.5, 2: 1.0})
    with pytest.raises(InputError, match="must be finite"):
        retrieval(torch.full((1, 2, 3), float("nan")), torch.ones(1, 2, 3))
