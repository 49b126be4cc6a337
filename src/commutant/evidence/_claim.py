"""Claims of papers: how each is measured, and the conditions under which it holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from .._checks import finite, one_of
from .._errors import InputError
from ._context import Context, Measurement

Basis: TypeAlias = Literal["seeds", "share", "identity"]
BASES: tuple[str, ...] = get_args(Basis)


@dataclass(frozen=True)
class Experiment:
    """A measurement at several scales; several claims may read its numbers.

    Args:
        name: Unique name in the paper, also the name of the folder of its runs.
        measure: Function from a `Context` to the measured numbers of one seed.
        settings: Settings at each scale, given to `measure` as `context.settings`.
        changes: Differences from the paper at each scale, in one sentence.
        data: Data used at each scale, in a few words.
        seeds: Default number of seeds at each scale.
        minutes: Recorded minutes of one seed on one core at the small scale; `reproduce --minutes` relies on it.
        unavailable: Function from the data folder (or None) to the reason why the experiment can't run here, or None.
        figure: Function from the measurements of all seeds to a matplotlib figure.
        figure_caption: One sentence under the figure.
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
        """Return six hex digits that hash the settings, so that runs with other settings go to other folders."""
        return hashlib.sha256(json.dumps(self.settings[scale], sort_keys=True).encode()).hexdigest()[:6]


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, stated as a number that must lie above a bar.

    Args:
        name: Unique name in the paper; `commutant reproduce PAPER/NAME` runs the claim.
        statement: The claim in one sentence that can be read alone.
        source: Place in the paper, such as a table or a section.
        reported: Numbers reported by the paper, under the names that the measurement uses.
        experiment: Experiment that measures the claim.
        effect: Function from a measurement to the number that must exceed the bar.
        effect_label: Description of that number.
        unit: Unit of the effect, written after the number, such as `"accuracy"`, `"digits"`, `"times"` or `"nats"`.
        at_least: The bar, in the unit of the effect.
        controls: Arms that would show the same effect if it were an artifact; each gives one number per seed.
        reported_effect: Effect computed from the numbers in the paper, or None.
        labels: Descriptions of the numbers in `reported`, by name, for tables that show ours next to the paper's.
        refutable_at: Scales at which a run can refute the statement. A run at another scale that falls short is called
            *not reproduced at this scale*. An identity can be refuted at every scale.
        basis: Meaning of the interval of the effect.
            `"seeds"`: the mean over seeds, for quantities that vary with the seed, such as those of trained networks.
            `"share"`: a share of trials that are independent within a seed too, such as drawn inputs of a fixed
            function; `cases` counts them.
            `"identity"`: the effect is deterministic, and every one of `cases` cases must lie at or above the bar.
        cases: Function from a measurement to the number of trials or cases behind the effect.

    Raises:
        InputError: The basis is unknown, the bar is not finite, or `cases` is missing for a share or an identity.
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
        one_of(f"basis of claim {self.name!r}", self.basis, BASES)
        finite(f"bar of claim {self.name!r}", self.at_least)
        if (self.basis == "seeds") != (self.cases is None):
            raise InputError(
                f"claim {self.name!r} has the basis {self.basis!r} and {'no' if self.cases is None else 'a'} count of "
                "cases; give `cases` for a share or an identity, and only there"
            )

    def can_be_refuted(self, scale: str) -> bool:
        """Return whether a run at a scale can refute the statement."""
        return self.basis == "identity" or scale in self.refutable_at


@dataclass(frozen=True)
class Paper:
    """A paper, the system that implements it, and its claims.

    Args:
        slug: Name on the command line and in addresses.
        title: Title.
        authors: Authors, in one string.
        year: Year of publication.
        venue: Conference or journal.
        link: Address of the paper.
        room: Room of the library that holds the system.
        idea: Summary in three sentences.
        usage: Short example that runs.
        subjects: Public classes and functions whose stated laws the report prints.
        claims: Claims, in the order of the report.
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
        """Experiments behind the claims, each once, in order."""
        return list({claim.experiment.name: claim.experiment for claim in self.claims}.values())

    def experiment(self, name: str) -> Experiment:
        """Return an experiment by name."""
        for experiment in self.experiments:
            if experiment.name == name:
                return experiment
        raise InputError(f"paper {self.slug} has no experiment {name!r}; it has {[e.name for e in self.experiments]}")
