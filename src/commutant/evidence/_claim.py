"""What a paper claims, how to measure it, and what it takes for the claim to hold."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from .._errors import InputError
from ._context import Context, Measurement

Basis: TypeAlias = Literal["seeds", "share", "identity"]
BASES: tuple[str, ...] = get_args(Basis)


@dataclass(frozen=True)
class Experiment:
    """Something to run and measure; several claims may read the same figures.

    Args:
        name: unique in its paper; names the folder of its runs.
        measure: from a `Context` to the figures of one seed.
        settings: for each scale, what `measure` reads as `context.settings`.
        changes: for each scale, what it changed against the paper, in a sentence.
        data: for each scale, which data fed it, in a few words.
        seeds: for each scale, how many seeds.
        minutes: of computing on one core that a seed takes at the small scale, as recorded; `reproduce --minutes` goes
            by it.
        unavailable: from the data folder (or None) to the reason why this can't run here, or None.
        figure: from the measurements of all seeds to a matplotlib figure.
        figure_caption: one sentence under the figure.
    """

    name: str
    measure: Callable[[Context], Measurement]
    settings: dict[str, dict[str, Any]]
    changes: dict[str, str]
    data: dict[str, str]
    seeds: dict[str, int]
    minutes: float
    unavailable: Callable[[str | None], str | None] = lambda _: None
    figure: Callable[[list[Measurement]], Any] | None = None
    figure_caption: str = ""

    def digest(self, scale: str) -> str:
        """Six hex digits that change with the settings, so that runs of other settings are never mixed in."""
        return hashlib.sha256(json.dumps(self.settings[scale], sort_keys=True).encode()).hexdigest()[:6]


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, as a number that must lie above a bar.

    Args:
        name: unique in its paper; `commutant reproduce PAPER/NAME` runs it.
        statement: the claim in one sentence.
        source: where the paper makes it.
        reported: the paper's own figures, under the names that the measurement uses.
        experiment: what measures it.
        effect: one number a seed; the claim is that it exceeds the bar.
        effect_label: what that number is, in words.
        unit: Unit of the effect, written behind the number, such as `"accuracy"`, `"digits"`, `"times"` or `"nats"`.
        at_least: the bar.
        controls: arms that would show the same effect if it were an artefact; each gives one number a seed.
        reported_effect: the effect computed from the paper's own figures, where it gives them.
        labels: Words for the figures in `reported`, by their names, so that tables show ours beside the paper's.
        refutable_at: Scales whose run can refute the statement. A run of another scale that falls short says *not
            reproduced at this scale*. An identity can be refuted at every scale.
        basis: What the interval of the effect is.
            `"seeds"`: the mean over seeds, for whatever varies from seed to seed, such as trained networks.
            `"share"`: a share of trials that are independent within a seed too, such as drawn inputs of a fixed
            function; `cases` counts them.
            `"identity"`: nothing random decides, every one of `cases` cases must lie at or above the bar.
        cases: From a measurement to the number of trials or cases behind the effect.

    Raises:
        InputError: for an unknown basis, a bar that is not finite, or a share or an identity without `cases`.
    """

    name: str
    statement: str
    source: str
    reported: dict[str, float]
    experiment: Experiment
    effect: Callable[[Measurement], float]
    effect_label: str
    at_least: float
    controls: dict[str, Callable[[Measurement], float]] = field(default_factory=dict)
    reported_effect: float | None = None
    basis: Basis = "seeds"
    cases: Callable[[Measurement], float] | None = None
    unit: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    refutable_at: tuple[str, ...] = ("full",)

    def __post_init__(self) -> None:
        if self.basis not in BASES:
            raise InputError(f"claim {self.name!r} has the basis {self.basis!r}; expected one of {', '.join(BASES)}")
        if not math.isfinite(self.at_least):
            raise InputError(f"claim {self.name!r} has the bar {self.at_least}; give a finite number")
        if (self.basis == "seeds") != (self.cases is None):
            raise InputError(
                f"claim {self.name!r} has the basis {self.basis!r} and {'no' if self.cases is None else 'a'} count of "
                "cases; give `cases` for a share or an identity, and only there"
            )


@dataclass(frozen=True)
class Paper:
    """A paper, the system that implements it, and its claims.

    Args:
        slug: its name on the command line and in addresses.
        title, authors, year, venue, link: the paper.
        room: the room of the library that holds the system.
        idea: what it says, in three sentences.
        usage: a short example that runs.
        subjects: the public classes and functions whose stated laws the report prints.
        claims: in the order of the report.
    """

    slug: str
    title: str
    authors: str
    year: int
    venue: str
    link: str
    room: str
    idea: str
    usage: str
    subjects: tuple[Callable[..., Any], ...]
    claims: tuple[Claim, ...]

    @property
    def experiments(self) -> list[Experiment]:
        """The experiments behind the claims, each once, in order."""
        return list({claim.experiment.name: claim.experiment for claim in self.claims}.values())

    def experiment(self, name: str) -> Experiment:
        """An experiment by name."""
        for experiment in self.experiments:
            if experiment.name == name:
                return experiment
        raise InputError(f"paper {self.slug} has no experiment {name!r}; it has {[e.name for e in self.experiments]}")
