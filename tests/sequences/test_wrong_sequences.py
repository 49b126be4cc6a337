"""Wrong calls of commutant.sequences raise errors of one sentence."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.sequences import (
    FERNN,
    FERNNSeq2Seq,
    LiftToFlow,
    MinLSTM,
    ParaGRU,
    RNNBlock,
    RotationFlow,
    TranslationFlow,
    bake,
    check_flow_equivariance,
    check_parallel,
    diagonalize_recurrent,
    lyapunov_exponent,
    prune_recurrent,
    pruning_curve,
)

X, FRAMES, GRID = torch.randn(4, 5, 3), torch.rand(2, 3, 1, 6, 6), TranslationFlow.grid(1)
GRU, CURVE = nn.GRU(3, 4), ([0.5],)
FLOW, AHEAD = FERNN(1, 2, GRID), FERNNSeq2Seq(1, 2, GRID)
CASES = {
    "a bound of text": (lambda: ParaGRU(3, 4, a_max="big"), "a_max must be a positive number, got 'big'"),
    "a state that is a number": (lambda: MinLSTM(3, 4)(X, 1), "consist of tensors, got \\['int'\\]"),
    "a tolerance below zero": (lambda: check_parallel(ParaGRU(3, 4), X, tolerance=-1.0), "tolerance must be"),
    "an exponent of an array": (lambda: lyapunov_exponent(ParaGRU(3, 4), X.numpy()), "x must be a tensor"),
    "a block of another width": (lambda: RNNBlock(8)(X), "must be .batch, time, 8."),
    "a block of an array": (lambda: RNNBlock(8)(X.numpy()), "x must be a tensor, got ndarray"),
    "half a frame": (lambda: AHEAD(FRAMES, 1.5), "n_future must be a whole number"),
    "a radius of text": (lambda: TranslationFlow.grid("2"), "radius must be"),
    "a radius below zero": (lambda: TranslationFlow.grid(-1), "radius must be"),
    "velocities of text": (lambda: TranslationFlow("x"), "generators must be numbers"),
    "angles of text": (lambda: RotationFlow("90", 4), "angles must be a list of degrees"),
    "an angle alone": (lambda: RotationFlow(90, 4), "angles must be a list of degrees"),
    "half an orientation": (lambda: RotationFlow([0, 90], 4.5), "orientations must be"),
    "a class of a cell": (lambda: LiftToFlow(nn.GRUCell, GRID), "the class GRUCell; call it"),
    "a flow by name": (lambda: LiftToFlow(nn.GRUCell(3, 4), "grid"), "flow must be a Flow"),
    "frames as an array": (lambda: FLOW(FRAMES.numpy()), "x must be a tensor, got ndarray"),
    "a class of a flow": (lambda: check_flow_equivariance(FLOW, TranslationFlow, FRAMES), "the class TranslationFlow"),
    "the order of a check": (
        lambda: check_flow_equivariance(GRID, FLOW, FRAMES),
        "flow and x in this order",
    ),
    "a check on an array": (lambda: check_flow_equivariance(FLOW, GRID, FRAMES.numpy()), "x must be a tensor, got nd"),
    "a check without fields": (lambda: check_flow_equivariance(ParaGRU(3, 4), GRID, X), "2 axes of the domain"),
    "a check that allows less than nothing": (
        lambda: check_flow_equivariance(FLOW, GRID, FRAMES, tolerance=-1.0),
        "tolerance must be",
    ),
    "baking a number": (lambda: bake(3), "must be an nn.Module, got int"),
    "a diagonal of text": (lambda: diagonalize_recurrent("x"), "must be an nn.Module, got str"),
    "a class of a layer": (lambda: prune_recurrent(nn.GRU, 0.5), "the class GRU; call it"),
    "a curve without a score": (lambda: pruning_curve(GRU, 3, *CURVE), "evaluate must be a function of a model"),
    "a curve of one amount": (lambda: pruning_curve(GRU, lambda m: 1.0, 0.5), "amounts must be a list"),
    "the order of a curve": (lambda: pruning_curve(lambda m: 1.0, GRU, *CURVE), "must be an nn.Module, got function"),
    "retraining by a number": (lambda: pruning_curve(GRU, lambda m: 1.0, *CURVE, retrain=3), "retrain must be"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", CASES)
def test_one_sentence(case):
    call, said = CASES[case]
    with pytest.raises(InputError, match=said) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_velocities_and_angles_in_tensors_are_taken():
    assert len(TranslationFlow(torch.tensor([[0, 1], [1, 0]]))) == 2
    assert len(RotationFlow(torch.tensor([0.0, 90.0]), 4)) == 2
