"""Papers with their claims, the experiments that measure them at each scale, and plots."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from .._errors import InputError
from ..evidence import Claim, Paper
from ._shared.figures import PALETTE as PALETTE


def slugs() -> list[str]:
    """Return the names of all papers, in alphabetical order."""
    return [info.name.replace("_", "-") for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_")]


def module_of(slug: str) -> str:
    """Return the name of the module that defines a paper.

    Args:
        slug: Name of the paper, as on the command line.
    """
    return f"{__name__}.{slug.replace('-', '_')}"


def paper(slug: str) -> Paper:
    """Return a paper by name.

    Args:
        slug: Name of the paper, as on the command line.

    Raises:
        InputError: For an unknown name; the message lists the nearest known ones.

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
    """Return all papers."""
    return [paper(slug) for slug in slugs()]


def select(targets: list[str]) -> list[tuple[Paper, list[Claim]]]:
    """Return the papers and claims named as `PAPER` or `PAPER/CLAIM`, or all of them if none is named.

    Args:
        targets: Names of papers and claims.

    Raises:
        InputError: For an unknown name; the message lists the nearest known ones.

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
