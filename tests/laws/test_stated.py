"""Every law that a public class states, over drawn sizes, widths, dtypes and values."""

import importlib
import pkgutil

import jaxtyping
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import commutant.algebra
import commutant.sets
from commutant.laws import Draw, stated_laws
from depth import some

for room in pkgutil.iter_modules(commutant.__path__):
    if room.ispkg:
        importlib.import_module(f"commutant.{room.name}")
LAWS = {law.id: law for law in stated_laws()}
_CHECKED = set()
SIZE, WIDTH = 7, 5


def test_the_rooms_state_laws():
    assert len(LAWS) > 25
    for room in (commutant.algebra, commutant.sets):
        for name in dir(room):
            subject = getattr(room, name)
            concrete = isinstance(subject, type) and issubclass(subject, commutant.algebra.Monoid)
            if concrete and subject is not commutant.algebra.Monoid:
                assert stated_laws(subject), f"{name} states no law"


# float64 takes the same paths as float32 but for the solvers and tolerances, which all laws of a subject share
CASES = [(torch.float32, law) for law in LAWS.values()]
CASES += some([(torch.float64, law) for law in LAWS.values()], family=lambda case: case[1].subject)


@pytest.mark.parametrize(("dtype", "law"), CASES, ids=lambda value: getattr(value, "id", str(value)[6:]))
@example(seed=0, size=SIZE, width=WIDTH)
@given(seed=st.integers(0, 2**31 - 1), size=st.integers(1, 24), width=st.integers(1, 16))
def test_law(law, dtype, seed, size, width, deep):
    if dtype == torch.float64 and (size, width) != (SIZE, WIDTH) and not deep:
        return
    # annotations are checked in the first example only, since checks in all of them would triple the time
    case = (law.id, dtype if deep else None)
    jaxtyping.config.update("jaxtyping_disable", case in _CHECKED)
    _CHECKED.add(case)
    try:
        report = law.check(Draw(torch.Generator().manual_seed(seed), size, width, dtype), trials=4 if deep else 2)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    expected = ("holds",) if law.holds else ("broken",)
    assert report.status in expected, str(report)
