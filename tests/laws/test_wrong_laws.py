"""Messages of wrong calls, and failures of a law's own code, which are not attributed to the function."""

import numpy as np
import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.laws import (
    Action,
    Associativity,
    BatchIndependence,
    Commutativity,
    Equivariance,
    FunctionPreservation,
    GradientEquivariance,
    Homomorphism,
    IdentityElement,
    Invariance,
    MatrixGroup,
    Reflection,
    Rotation,
    SetPermutation,
    SquareSymmetry,
    TimeShift,
    Translation,
    check,
    check_action,
    parse_input,
    stated_laws,
)

PERMUTE = Invariance(SetPermutation())
X = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
PLANE = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0))
NET = nn.Linear(3, 3)
CALLS = {
    "order": (lambda: check(NET, PERMUTE, X), "law, f, inputs"),
    "order of the last": (lambda: check(PERMUTE, X, NET), "second is not callable"),
    "action for a law": (lambda: check(Rotation(), NET, X), "wrap it in a law"),
    "class of a law": (lambda: check(BatchIndependence, NET, X), "pass an instance"),
    "class of a module": (lambda: check(PERMUTE, nn.Linear, X), "pass an instance"),
    "class of an action": (lambda: Invariance(Rotation), "pass an instance"),
    "name of an action": (lambda: Invariance("rotation"), "must be an Action"),
    "class of the output": (lambda: Equivariance(Rotation(), Rotation), "output is the class"),
    "class in a product": (lambda: Rotation() * Rotation, "a product takes actions"),
    "class checked": (lambda: check_action(Rotation, X), "pass an Action instance"),
    "no input": (lambda: check(PERMUTE, NET, None), "at least one tensor"),
    "array": (lambda: check(PERMUTE, NET, np.zeros((2, 3))), "at least one tensor"),
    "array beside": (lambda: check(PERMUTE, NET, (X, np.zeros(3))), "from_numpy"),
    "trials": (lambda: check(PERMUTE, NET, X, trials=2.5), "trials"),
    "tolerance": (lambda: check(PERMUTE, NET, X, tolerance=float("nan")), "tolerance"),
    "rotation of planes": (lambda: check(Invariance(Rotation(3)), NET, PLANE), "last axis has size 3"),
    "rotation of ids": (lambda: check(Invariance(Rotation(3)), NET, X.long()), "real or complex"),
    "translation of planes": (lambda: check(Invariance(Translation(3)), NET, PLANE), "last axis has size 3"),
    "product of planes": (
        lambda: check(Invariance(SetPermutation() * Rotation(3)), NET, PLANE),
        "last axis has size 3",
    ),
    "gradients of planes": (lambda: check(GradientEquivariance(Rotation(3)), NET, PLANE), "last axis has size 3"),
    "axioms of planes": (lambda: check_action(Rotation(3), PLANE), "last axis has size 3"),
    "missing part": (lambda: check(Invariance(Rotation().on("pos")), NET, {"x": X}), "part 'pos'"),
    "missing axis": (lambda: check(Invariance(TimeShift(3)), NET, X), "axis 3"),
    "images": (lambda: check(Invariance(SquareSymmetry()), NET, X[0]), "three axes"),
    "two arguments": (lambda: check(Commutativity(), torch.add, X), "tuple of"),
    "three arguments": (
        lambda: check(Associativity(), torch.add, (X, X)),
        "tuple of 3 inputs, one per argument, got 2",
    ),
    "one argument": (lambda: check(IdentityElement(torch.zeros_like), torch.add, X), "tuple of"),
    "no operator": (lambda: Homomorphism(3), "source must be a function"),
    "no transformation": (lambda: FunctionPreservation(NET.weight), "transform must be a function"),
    "float dimension": (lambda: Rotation(3.0), "d must be a whole number"),
    "axis of a mirror": (lambda: Reflection(3, axis="x"), "axis must be"),
    "scale": (lambda: Translation(3, "large"), "scale must be"),
    "named axis": (lambda: SetPermutation("nodes"), "dim must be"),
    "negative axis": (lambda: TimeShift(-1), "dim must be"),
    "a sampler without a generator": (lambda: check(PERMUTE, NET, lambda: X), "does not accept exactly one argument"),
    "sizes as a tuple": (lambda: parse_input((8, 3)), "got tuple"),
    "order of an action": (lambda: check_action(X, Rotation(3)), "got Tensor as the action"),
    "laws of a name": (lambda: stated_laws("Sum"), "class or function that states laws, got 'Sum'"),
    "generators": (lambda: MatrixGroup(torch.eye(3)), "shape"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS.keys())
def test_wrong_calls_are_named(call, said):
    with pytest.raises(InputError, match=said):
        call()


class Broken(SetPermutation):
    def act(self, g, x):
        raise KeyError("mine")


@pytest.mark.parametrize(
    ("law", "x"),
    [
        (Invariance(Broken()), X),
        (Equivariance(SetPermutation(), Broken()), X),
        (FunctionPreservation(lambda f: 1 / 0), X),
        (Homomorphism(lambda a, b: a @ b), (X, X)),
    ],
    ids=["action", "output", "transformation", "operator"],
)
def test_failures_of_the_law_are_its_own(law, x):
    with pytest.raises(InputError, match="the function itself did not fail"):
        check(law, lambda x: 2 * x, x)


def test_failures_of_the_function_are_raised_or_told():
    with pytest.raises(RuntimeError, match="mat1"):
        check(PERMUTE, nn.Linear(7, 2), X)

    def refuses(x):
        if x.shape[0] == 1:
            raise InputError("one sample is too few")
        return x.sum(1)

    report = check(BatchIndependence(), refuses, X[:2])
    assert report.status == "broken"
    assert "one sample is too few" in report.sentence


class TestAxioms:
    def test_nan_for_half_of_the_elements(self):
        class Half(Rotation):
            def act(self, g, x):
                return super().act(g, x) * (float("nan") if g[0, 0] > 0 else 1)

        assert check_action(Half(), X) == float("inf")

    def test_a_wrong_imaginary_part(self):
        class Wrong(Action):
            name = "wrong"

            def sample(self, x, generator):
                return float(torch.rand((), generator=generator))

            def identity(self, x):
                return 0.0

            def compose(self, g, h):
                return g + h

            def inverse(self, g):
                return -g

            def act(self, g, x):
                return torch.complex(x.real + g, x.imag + g**2)

        assert check_action(Wrong(), torch.randn(5, dtype=torch.complex128)) > 0.01

    def test_a_lost_part(self):
        class Loses(Rotation):
            def act(self, g, x):
                return super().act(g, x)[1:]

        assert check_action(Loses(), X) == float("inf")


class TestComplexGradients:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.complex(x.sum(1), x.sum(1) ** 2)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            weight = torch.ones_like(x)
            weight[:, 0] = 1.01
            return (gradient.real + 2 * gradient.imag * x.sum(1))[:, None] * weight

    def test_a_wrong_backward_of_a_complex_output(self):
        law = GradientEquivariance(SetPermutation())
        assert check(law, self.Wrong.apply, X).status == "broken"
        assert check(law, lambda x: torch.complex(x.sum(1), x.sum(1) ** 2), X).passed

    def test_complex_inputs(self):
        law, z = GradientEquivariance(SetPermutation()), torch.randn(4, 5, 3, dtype=torch.complex64)
        assert check(law, lambda z: z.abs().square().sum(1), z).passed
        assert check(law, lambda z: z[:, 0].abs().square(), z).status == "broken"
