"""How deep a test run goes: one representative of each family by default, everything with `--deep`."""

import pytest


def some(cases, keep=1, family=None):
    """Return all cases, those beyond the first of each family marked as deep.

    Args:
        cases: Cases of `pytest.mark.parametrize`.
        keep: Number of cases of each family that run by default.
        family: Function that names the family of a case; without it, all cases are one family.
    """
    seen, marked = {}, []
    for case in cases:
        name = family(case) if family else None
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= keep:
            marked.append(case)
        elif isinstance(case, type(pytest.param())):
            marked.append(pytest.param(*case.values, marks=[*case.marks, pytest.mark.deep], id=case.id))
        else:
            values = case if isinstance(case, tuple) else (case,)
            marked.append(pytest.param(*values, marks=pytest.mark.deep))
    return marked


def chosen(cases, names):
    """Return all cases, those not among the names marked as deep."""
    return [case if case in names else pytest.param(case, marks=pytest.mark.deep) for case in cases]
