"""Papers: their claims, how each claim is measured at each scale, and its figures."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from .._errors import InputError
from ..evidence import Claim, Paper
from ._shared.figures import PALETTE as PALETTE


def slugs() -> list[str]:
    """The names of all papers."""
    return [info.name.replace("_", "-") for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_")]


def module_of(slug: str) -> str:
    """The module that defines a paper."""
    return f"{__name__}.{slug.replace('-', '_')}"


def paper(slug: str) -> Paper:
    """A paper by name.

    Raises:
        InputError: for an unknown name, with the nearest known ones.

    Example:
        >>> paper("lcm").year
        2022
    """
    if slug not in slugs():
        raise InputError(f"unknown paper {slug!r}{_nearest(slug, slugs())}")
    found = importlib.import_module(module_of(slug)).PAPER
    assert isinstance(found, Paper)
    return found


def papers() -> list[Paper]:
    """All papers."""
    return [paper(slug) for slug in slugs()]


def select(targets: list[str]) -> list[tuple[Paper, list[Claim]]]:
    """Papers and claims named as `PAPER` or `PAPER/CLAIM`; all of them when nothing is named.

    Example:
        >>> [(p.slug, [c.name for c in claims]) for p, claims in select(["lcm/second-minimum"])]
        [('lcm', ['second-minimum'])]
    """
    chosen: dict[str, dict[str, Claim]] = {}
    for target in targets or slugs():
        slug, _, name = target.partition("/")
        found = paper(slug)
        by_name = {claim.name: claim for claim in found.claims}
        if name and name not in by_name:
            raise InputError(f"paper {slug} has no claim {name!r}{_nearest(name, list(by_name))}")
        chosen.setdefault(slug, {}).update({name: by_name[name]} if name else by_name)
    return [(paper(slug), list(claims.values())) for slug, claims in chosen.items()]


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known are {', '.join(known)}"
