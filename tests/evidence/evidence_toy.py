"""A paper with quick claims, for the tests of the machinery."""

import os
import time

import torch
from torch import nn

from commutant.evidence import Claim, Experiment, Paper


def measure_line(context):
    """Fit a line, slowly enough to be killed."""
    context.total_arms = 2

    def arm(name, width):
        def measure():
            model = context.train(
                name,
                lambda: nn.Sequential(nn.Linear(3, width), nn.Dropout(0.1), nn.Linear(width, 1)),
                lambda generator, n: torch.randn(n, 3, generator=generator),
                lambda model, x: (_pause(), (model(x) - x.sum(1, keepdim=True)).square().mean())[1],
                steps=context.settings["steps"],
                batch_size=8,
                learning_rate=1e-2,
                checkpoint_every=5,
            )
            probe = torch.ones(1, 3)
            with torch.no_grad():
                return {name: float(model(probe)), f"{name}-weights": float(sum(p.sum() for p in model.parameters()))}

        return context.arm(name, measure)

    return {**arm("narrow", 4), **arm("wide", 8)}


def _pause():
    time.sleep(float(os.environ.get("TOY_PAUSE", "0")))


def measure_killer(context):
    """Die once, the first time that this seed runs."""
    mark = context.folder.path / "was-here"
    if context.seed == 1 and not mark.exists():
        mark.write_text("x")
        os.kill(os.getpid(), 9)
    return {"seed": float(context.seed)}


def measure_reader(context):
    return {"there": float(context.data_dir is not None)}


def measure_noise(context):
    """Draw one number around one, one around zero, and a share of 50 trials."""
    generator = context.generator()
    draw = torch.randn(2, generator=generator)
    right = int((torch.rand(50, generator=generator) < 0.9).sum())
    return {"effect": 1 + 0.5 * float(draw[0]), "control": 0.2 * float(draw[1]), "share": right / 50, "n": 50.0}


def measure_failing(context):
    if context.seed == 0:
        raise ZeroDivisionError("one\ntwo")
    return {"seed": float(context.seed)}


def experiment(name, measure, seeds=2, **settings):
    return Experiment(
        name, measure, {"small": settings}, {"small": "nothing"}, {"small": "generated"}, {"small": seeds}, minutes=0.1
    )


def claim(name, experiment, **options):
    options = {"effect": lambda m: next(iter(m.values())), "at_least": 0.0, **options}
    return Claim(name, "it works", "here", {}, experiment, effect_label="figure", **options)


LINE = experiment("line", measure_line, steps=80)
KILLER = experiment("killer", measure_killer, seeds=3)
READER = experiment("reader", measure_reader)
FAILING = experiment("failing", measure_failing)
NOISE = experiment("noise", measure_noise)
PAPER = Paper(
    slug="toy",
    title="A toy",
    authors="nobody",
    year=2026,
    venue="tests",
    link="",
    room="sets",
    idea="",
    usage="",
    subjects=(),
    claims=(
        claim("line", LINE),
        claim("killer", KILLER),
        claim("reader", READER),
        claim("failing", FAILING),
        claim("noise", NOISE, effect=lambda m: m["effect"], at_least=0.5),
    ),
)
