"""Every public name of the room refuses a wrong type, rank, dtype or choice with one sentence."""

import numpy as np
import pytest
import torch
from torch import nn

from commutant import InputError, geometry
from commutant.geometry import (
    CanonicalOrder,
    Change,
    FrameAverage,
    GraphAverage,
    HyperPredictor,
    ImageAverage,
    InvariantCoordinates,
    LatentFrameAverage,
    MDSCoordinates,
    OrthogonalPredictor,
    QuaternionPredictor,
    RoutingCoordinates,
    SIELoss,
    Split,
    SplitRepresentation,
    StochasticFrame,
    TransformEquivariant,
    TransformInvariant,
    classical_mds,
    collapse_floor,
    equivariance_report,
    hue_code,
    landmark_mds,
    pose_error,
    quaternion_code,
    quaternion_product,
    retrieval,
    rotation_r2,
    rotation_vector_code,
    symmetrize_,
    vicreg_covariance,
    vicreg_variance,
)

NET, X, INTS = nn.Linear(3, 3), torch.randn(2, 5, 3), torch.ones(2, 5, 3, dtype=torch.long)
SQUARE = torch.zeros(1, 4, 4)
CALLS = {
    "FrameAverage": [
        lambda: FrameAverage(nn.Linear),
        lambda: FrameAverage(torch.tanh),
        lambda: FrameAverage("net"),
        lambda: FrameAverage(NET, 3),
        lambda: FrameAverage(NET, inputs=["points"]),
        lambda: FrameAverage(NET, outputs=None),
        lambda: FrameAverage(NET, outputs={"y": 3}),
        lambda: FrameAverage(NET, frames=nn.Linear),
        lambda: FrameAverage(NET, "T(3)", frames="weighted"),
        lambda: FrameAverage(NET, blend=(0.1, 0.01)),
        lambda: FrameAverage(NET, blend=0.1),
        lambda: FrameAverage(NET, blend=("small", "large")),
        lambda: FrameAverage(NET, samples=1.5),
        lambda: FrameAverage(NET, chunk="all"),
        lambda: FrameAverage(NET, tuples=0),
        lambda: FrameAverage(NET, tuples=None),
        lambda: FrameAverage(NET, signs="left"),
        lambda: FrameAverage(NET, scale="big"),
        lambda: FrameAverage(NET, on_degenerate="hope"),
        lambda: FrameAverage(NET, gradient=None),
        lambda: FrameAverage(NET, score=nn.Linear),
        lambda: FrameAverage(NET)(INTS),
        lambda: FrameAverage(NET)(X.numpy()),
        lambda: FrameAverage(NET)([[0.0, 1.0, 2.0]]),
        lambda: FrameAverage(NET)(torch.randn(3)),
        lambda: FrameAverage(NET)(X.to(torch.complex64)),
        lambda: FrameAverage(NET, frames=lambda x, clouds: x)(X),
    ],
    "symmetrize_": [lambda: symmetrize_(nn.Linear), lambda: symmetrize_(torch.tanh), lambda: symmetrize_(NET, "Z(3)")],
    "TransformInvariant": [
        lambda: TransformInvariant(nn.Linear),
        lambda: TransformInvariant(NET, 3),
        lambda: TransformInvariant(NET, signs=None),
        lambda: TransformInvariant(NET, scale="big"),
        lambda: TransformInvariant(NET)(INTS),
    ],
    "TransformEquivariant": [
        lambda: TransformEquivariant(nn.Linear),
        lambda: TransformEquivariant(NET, signs="random"),
    ],
    "GraphAverage": [
        lambda: GraphAverage(NET, kind="bogus"),
        lambda: GraphAverage(NET, outputs="edges"),
        lambda: GraphAverage(nn.Linear),
        lambda: GraphAverage("net"),
        lambda: GraphAverage(NET, samples=0.5),
        lambda: GraphAverage(NET, max_frames=0),
        lambda: GraphAverage(NET)(SQUARE[0]),
        lambda: GraphAverage(NET)(np.zeros((1, 4, 4))),
        lambda: GraphAverage(NET)(SQUARE.to(torch.complex64)),
        lambda: GraphAverage(NET)(SQUARE, mask=torch.ones(1, 3, dtype=torch.bool)),
        lambda: GraphAverage(NET)(SQUARE, mask=[[True] * 4]),
        lambda: GraphAverage(NET)(SQUARE, torch.ones(1, 3, 2)),
        lambda: GraphAverage(lambda a: "text")(SQUARE),
        lambda: GraphAverage(lambda a: a[0, 0])(SQUARE),
    ],
    "ImageAverage": [
        lambda: ImageAverage(nn.Linear),
        lambda: ImageAverage("net"),
        lambda: ImageAverage(NET, 4),
        lambda: ImageAverage(NET, samples=1.5),
        lambda: ImageAverage(NET, chunk=0),
        lambda: ImageAverage(NET)(),
        lambda: ImageAverage(NET)(np.zeros((1, 3, 4, 4))),
        lambda: ImageAverage(NET)(torch.randn(3, 4, 4)),
    ],
    "LatentFrameAverage": [
        lambda: LatentFrameAverage(nn.Linear, [NET], NET),
        lambda: LatentFrameAverage(NET, [], NET),
        lambda: LatentFrameAverage(NET, [nn.Linear], NET),
        lambda: LatentFrameAverage(NET, NET, NET),
        lambda: LatentFrameAverage(NET, [NET], NET, group="E(3)"),
        lambda: LatentFrameAverage(NET, [NET], NET, group="T"),
        lambda: LatentFrameAverage(NET, [NET], NET)(INTS[0], edge_index=torch.zeros(2, 0, dtype=torch.long)),
        lambda: LatentFrameAverage(NET, [NET], NET)(X, edge_index=torch.zeros(2, 0, dtype=torch.long)),
        lambda: LatentFrameAverage(NET, [NET], NET)(X[0], edge_index=torch.zeros(2, 0)),
        lambda: LatentFrameAverage(NET, [NET], NET)(X[0], X[0], edge_index=torch.zeros(2, 0, dtype=torch.long)),
    ],
    "MDSCoordinates": [
        lambda: MDSCoordinates(components=1.5),
        lambda: MDSCoordinates(components=0),
        lambda: MDSCoordinates(signs="left"),
        lambda: MDSCoordinates(group="E"),
        lambda: MDSCoordinates(from_distances=True),
        lambda: MDSCoordinates(on_degenerate="hope"),
        lambda: MDSCoordinates()(INTS),
        lambda: MDSCoordinates()(X.numpy()),
        lambda: MDSCoordinates(4)(X),
        lambda: MDSCoordinates(2, from_distances=True)(X),
    ],
    "RoutingCoordinates": [
        lambda: RoutingCoordinates(signs=None),
        lambda: RoutingCoordinates(on_degenerate="hope"),
        lambda: RoutingCoordinates()(INTS),
        lambda: RoutingCoordinates()([[0.0, 1.0]]),
    ],
    "classical_mds": [
        lambda: classical_mds(X, 2),
        lambda: classical_mds(np.zeros((3, 3)), 2),
        lambda: classical_mds(torch.zeros(3, 3), 0),
        lambda: classical_mds(torch.zeros(3, 3), 1.5),
        lambda: classical_mds(torch.zeros(3, 3, dtype=torch.complex64), 1),
    ],
    "landmark_mds": [
        lambda: landmark_mds(torch.zeros(3, 3), torch.zeros(5, 4), 2),
        lambda: landmark_mds(np.zeros((3, 3)), torch.zeros(5, 3), 2),
        lambda: landmark_mds(torch.zeros(3, 3), [[0.0] * 3], 2),
        lambda: landmark_mds(torch.zeros(3, 3), torch.zeros(5, 3), 2),
        lambda: landmark_mds(torch.zeros(3, 3), torch.zeros(5, 3), 1.5),
    ],
    "StochasticFrame": [
        lambda: StochasticFrame("Z"),
        lambda: StochasticFrame("E(3)"),
        lambda: StochasticFrame(generator=3),
        lambda: StochasticFrame()(torch.randn(3, 3)),
    ],
    "InvariantCoordinates": [
        lambda: InvariantCoordinates("maxabs"),
        lambda: InvariantCoordinates(MDSCoordinates),
        lambda: InvariantCoordinates()(torch.randn(3, 3)),
    ],
    "CanonicalOrder": [
        lambda: CanonicalOrder(0),
        lambda: CanonicalOrder(1.5),
        lambda: CanonicalOrder()(torch.randn(3, 3)),
    ],
    "SplitRepresentation": [
        lambda: SplitRepresentation(nn.Linear, 8),
        lambda: SplitRepresentation(NET, 8.0),
        lambda: SplitRepresentation(NET, 8, 8),
        lambda: SplitRepresentation(NET, 8, projector=()),
        lambda: SplitRepresentation(NET, 8, projector=(4, 0)),
        lambda: SplitRepresentation(NET, 8, projector=(1, 1)),
        lambda: SplitRepresentation(NET, 8, projector=64),
        lambda: SplitRepresentation(NET, 8, projector=(8, 8))(torch.randn(4, 3)),
    ],
    "HyperPredictor": [
        lambda: HyperPredictor(0, 4),
        lambda: HyperPredictor(8, 4.0),
        lambda: HyperPredictor(8, 4, rank=0),
        lambda: HyperPredictor(8, 4, center=torch.zeros(3)),
        lambda: HyperPredictor(8, 4, center=[0.0] * 4),
        lambda: HyperPredictor(8, 4)(torch.randn(2, 7), torch.randn(2, 4)),
        lambda: HyperPredictor(8, 4)(torch.randn(2, 8), torch.randn(3, 4)),
        lambda: HyperPredictor(8, 4)(torch.randn(8), torch.randn(4)),
    ],
    "QuaternionPredictor": [
        lambda: QuaternionPredictor(6),
        lambda: QuaternionPredictor(8.0),
        lambda: QuaternionPredictor("8"),
        lambda: QuaternionPredictor(8)(torch.randn(2, 8), torch.randn(2, 3)),
        lambda: QuaternionPredictor(8)(torch.randn(2, 8), [1.0]),
        lambda: QuaternionPredictor(8).matrix(torch.randn(4)),
    ],
    "OrthogonalPredictor": [
        lambda: OrthogonalPredictor(8, 0),
        lambda: OrthogonalPredictor(8.0, 3),
        lambda: OrthogonalPredictor(8, 3, block=3),
        lambda: OrthogonalPredictor(8, 3, block=2.0),
        lambda: OrthogonalPredictor(8, 3)(torch.randn(2, 8), torch.randn(2, 4)),
        lambda: OrthogonalPredictor(8, 3)(np.zeros((2, 8)), torch.randn(2, 3)),
        lambda: OrthogonalPredictor(8, 3).matrix(torch.randn(3)),
    ],
    "SIELoss": [
        lambda: SIELoss(-1.0),
        lambda: SIELoss("10"),
        lambda: SIELoss()(Split(X[0], X[0], X[0]), Split(X[0], X[0], X[0][:, :2]), X[0]),
        lambda: SIELoss()(X[0], X[0], X[0]),
    ],
    "vicreg_variance": [
        lambda: vicreg_variance(torch.randn(1, 3)),
        lambda: vicreg_variance(np.zeros((2, 3))),
        lambda: vicreg_variance(INTS[0]),
    ],
    "vicreg_covariance": [
        lambda: vicreg_covariance(torch.randn(3)),
        lambda: vicreg_covariance([[0.0], [1.0]]),
        lambda: vicreg_covariance(torch.zeros(4, 0)),
    ],
    "collapse_floor": [
        lambda: collapse_floor(torch.randn(3)),
        lambda: collapse_floor(torch.zeros(0, 3)),
        lambda: collapse_floor([[1.0]]),
        lambda: collapse_floor(torch.full((2, 2), torch.nan)),
    ],
    "quaternion_code": [
        lambda: quaternion_code(torch.eye(4)),
        lambda: quaternion_code(np.eye(3)),
        lambda: quaternion_code(torch.eye(3, dtype=torch.long)),
        lambda: quaternion_code(2 * torch.eye(3)),
        lambda: quaternion_code(-torch.eye(3)),
    ],
    "rotation_vector_code": [
        lambda: rotation_vector_code(torch.eye(2)),
        lambda: rotation_vector_code([[1.0]]),
        lambda: rotation_vector_code(torch.eye(3, dtype=torch.long)),
    ],
    "quaternion_product": [
        lambda: quaternion_product(torch.randn(3), torch.randn(4)),
        lambda: quaternion_product([1.0], torch.randn(4)),
        lambda: quaternion_product(torch.randn(2, 4), torch.randn(3, 4)),
    ],
    "hue_code": [
        lambda: hue_code(0.2, torch.rand(3)),
        lambda: hue_code(torch.rand(2), torch.rand(3)),
        lambda: hue_code(torch.ones(2, dtype=torch.long), torch.rand(2)),
    ],
    "rotation_r2": [
        lambda: rotation_r2(torch.randn(3, 4), torch.randn(4, 4)),
        lambda: rotation_r2([1.0], [1.0]),
        lambda: rotation_r2(torch.full((3, 4), torch.nan), torch.randn(3, 4)),
        lambda: rotation_r2(torch.ones(3, 4), torch.ones(3, 4)),
    ],
    "retrieval": [
        lambda: retrieval(torch.randn(2, 3), torch.randn(2, 3)),
        lambda: retrieval([1.0], [1.0]),
        lambda: retrieval(X, X, at=(0,)),
        lambda: retrieval(X, X, at=5),
    ],
    "pose_error": [
        lambda: pose_error(torch.randn(2, 3), torch.randn(4, 3), torch.randn(3, 4), torch.randn(2, 4)),
        lambda: pose_error(torch.randn(2, 3), torch.randn(4, 3), torch.randn(4, 4), torch.randn(1, 4)),
        lambda: pose_error(torch.randn(2, 3), torch.randn(0, 3), torch.randn(0, 4), torch.randn(2, 4)),
        lambda: pose_error(torch.randn(2, 3), torch.randn(4, 5), torch.randn(4, 4), torch.randn(2, 4)),
        lambda: pose_error([1.0], torch.randn(4, 5), torch.randn(4, 4), torch.randn(2, 4)),
        lambda: pose_error(torch.full((2, 3), torch.nan), torch.randn(4, 3), torch.randn(4, 4), torch.randn(2, 4)),
        lambda: pose_error(torch.randn(0, 3), torch.randn(4, 3), torch.randn(4, 4), torch.randn(0, 4)),
    ],
    "equivariance_report": [
        lambda: equivariance_report(nn.Linear, {"a": Change(X, X, X)}),
        lambda: equivariance_report(NET, {}),
        lambda: equivariance_report(NET, [Change(X, X, X)]),
        lambda: equivariance_report(NET, {"a": (X, X)}),
        lambda: equivariance_report(NET, {"a": Change(X, X, X)}, components=1.5),
        lambda: equivariance_report("model", {"a": Change(X, X, X)}),
    ],
}
RESULTS = {"Change", "Embedding", "EquivarianceReport", "Movement", "Retrieval", "RotationScore", "Split"}


def test_every_public_name_is_tried():
    public = {
        name for name in vars(geometry) if not name.startswith("_") and not hasattr(getattr(geometry, name), "__path__")
    }
    assert public - RESULTS == set(CALLS)


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, calls in CALLS.items() for i in range(len(calls))])
def test_wrong_calls_are_refused(name, number, unchecked):
    with pytest.raises(InputError) as caught:
        CALLS[name][number]()
    assert "\n" not in str(caught.value)
