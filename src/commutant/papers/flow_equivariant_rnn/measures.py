"""Measurements for the claims of the flow-equivariant RNN paper."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ...data import Glyphs, digit_glyphs, flowing_glyphs, mnist_glyphs
from ...evidence import Context, Measurement
from ...sequences import FERNN, FERNNCell, FERNNSeq2Seq, Flow, TranslationFlow, check_flow_equivariance
from .._shared.timing import median_seconds

_ARMS: dict[str, tuple[int, str, int]] = {  # radius of V, decoder, factor of the width
    "grnn": (0, "lagged", 1),
    "grnn-wide": (0, "lagged", 2),
    "grnn-aligned": (0, "aligned", 1),
    "fernn-lagged": (1, "lagged", 1),
    "fernn": (1, "aligned", 1),
    "fernn-v2": (2, "aligned", 1),
}


def _glyphs(context: Context, part: str) -> Glyphs:
    return digit_glyphs(part) if context.settings["data"] == "digits" else mnist_glyphs(part, context.data_dir)


def _model(context: Context, arm: str) -> FERNNSeq2Seq:
    radius, decode, factor = _ARMS[arm]
    width = context.settings["channels"] * factor
    flow = TranslationFlow.grid(radius)
    layers = context.settings["decoder_layers"]
    return FERNNSeq2Seq(1, width, flow, decode=decode, decoder_layers=layers, bias=False)


def _train(context: Context, arm: str) -> nn.Module:
    settings, glyphs = context.settings, _glyphs(context, "train")
    given, ahead = settings["given"], settings["ahead"]

    def draw(generator: torch.Generator, count: int) -> Tensor:
        frames = given + ahead
        speed = settings["train_speed"]
        return flowing_glyphs(generator, count, glyphs, size=settings["size"], frames=frames, speed=speed).to(
            context.device
        )

    def loss(model: nn.Module, frames: Tensor) -> Tensor:
        return nn.functional.mse_loss(model(frames[:, :given], ahead), frames[:, given:])

    return context.train(
        arm,
        lambda: _model(context, arm),
        draw,
        loss,
        steps=settings["steps"],
        batch_size=settings["batch"],
        learning_rate=settings["learning_rate"],
    ).eval()


@torch.no_grad()
def _errors(context: Context, model: nn.Module, ahead: int, **motion: object) -> Tensor:
    """Return the mean squared error of every predicted frame, `(ahead,)`, on test digits."""
    settings, glyphs = context.settings, _glyphs(context, "test")
    generator, given = context.generator(5), settings["given"]
    frames = flowing_glyphs(
        generator,
        settings["test"],
        glyphs,
        size=settings["size"],
        frames=given + ahead,
        **motion,  # type: ignore[arg-type]
    ).to(context.device)
    found = [
        (model(part[:, :given], ahead) - part[:, given:]).pow(2).mean((2, 3, 4)).sum(0) for part in frames.split(64)
    ]
    return torch.stack(found).sum(0) / len(frames)


def measure_forecast(context: Context) -> Measurement:
    """Return the error on the trained horizon and on frames beyond it."""
    ahead, speed = context.settings["ahead"], context.settings["train_speed"]
    arms = ("grnn", "grnn-wide", "grnn-aligned", "fernn-lagged", "fernn")

    def measure(arm: str) -> Measurement:
        model = _train(context, arm)
        errors = _errors(context, model, 4 * ahead, speed=speed)
        return {
            f"{arm}@near": float(errors[:ahead].mean()),
            f"{arm}@next": float(errors[ahead : 2 * ahead].mean()),
            f"{arm}@far": float(errors[2 * ahead :].mean()),
            f"{arm}@beyond": float(errors[ahead:].mean()),
            f"{arm}@parameters": float(sum(p.numel() for p in model.parameters())),
            **{f"{arm}@frame-{t + 1}": float(e) for t, e in enumerate(errors)},
        }

    return context.arms({arm: partial(measure, arm) for arm in arms})


def measure_velocities(context: Context) -> Measurement:
    """Return the error at velocities that were in training and at faster ones."""
    ahead = context.settings["ahead"]
    arms = ("grnn", "fernn", "fernn-v2")

    def measure(arm: str) -> Measurement:
        model = _train(context, arm)
        found: Measurement = {}
        for name, velocities in {
            "seen": ((0, 0), (1, 0), (0, -1), (1, 1)),
            "unseen": ((2, 0), (0, -2), (2, 2), (-2, 1)),
        }.items():
            errors = [_errors(context, model, ahead, velocity=torch.tensor(v)).mean() for v in velocities]
            found[f"{arm}@{name}"] = float(torch.stack(errors).mean())
        found[f"{arm}@ratio"] = found[f"{arm}@unseen"] / found[f"{arm}@seen"]
        return found

    return context.arms({arm: partial(measure, arm) for arm in arms})


def measure_equivariance(context: Context) -> Measurement:
    """Return the relative errors of flow equivariance of random networks, in double precision."""
    settings = context.settings
    n = settings["size"]
    closed = TranslationFlow.closed(n, n)
    x = torch.rand(2, settings["given"], 1, n, n, generator=context.generator(), dtype=torch.float64)
    torch.manual_seed(context.seed)

    def error(module: nn.Module, flow: Flow, start: int = 0, ahead: int = 0) -> float:
        module = module.double()
        run = (lambda x: module(x, ahead)) if ahead else module
        return float(check_flow_equivariance(run, flow, x, start=start).errors.max())

    given = settings["given"]
    return {
        "cases": float(len(x) * len(closed.generators) * given),  # sequences, velocities and steps
        "fernn": error(FERNN(1, 4, closed, pool=None), closed),
        "mixing": error(FERNN(1, 4, closed, v_mixing=1, pool=None), closed),
        "grnn": error(FERNN(1, 4, TranslationFlow.grid(0)), closed),
        "part": error(FERNN(1, 4, TranslationFlow.grid(1)), TranslationFlow.grid(1)),
        "aligned": error(FERNNSeq2Seq(1, 4, closed), closed, given, given),
        "lagged": error(FERNNSeq2Seq(1, 4, closed, decode="lagged"), closed, given, given),
    }


def _slice_by_slice(cell: FERNNCell, x: Tensor) -> Tensor:
    """Run a cell like the published code, which rolls and convolves one slice after the other."""
    velocities = [tuple(int(v) for v in nu) for nu in cell.flow.generators.tolist()]
    slices: list[Tensor] = []
    out = []
    for t in range(x.shape[1]):
        drive = cell.drive(x[:, t])[:, 0]
        moved = [h.roll(nu, (-2, -1)) for h, nu in zip(slices, velocities, strict=False)]
        padded = [nn.functional.pad(h, [cell.pad] * 4, mode="circular") for h in moved]
        slices = [torch.relu(drive + cell.state(h)) for h in padded] or [torch.relu(drive)] * len(velocities)
        out.append(torch.stack(slices, 1).amax(1))
    return torch.stack(out, 1)


def measure_cost(context: Context) -> Measurement:
    """Return the seconds of a forward and backward pass: all velocities at once, slice by slice, and without any."""
    settings = context.settings
    size, channels = settings["size"], settings["channels"]
    x = torch.rand(settings["batch"], settings["given"], 1, size, size, generator=context.generator()).to(
        context.device
    )
    nets = {f"v{r}": FERNN(1, channels, TranslationFlow.grid(r)).to(context.device) for r in (0, 1, 2)}
    runs = {name: (lambda x, net=net: net(x)[0]) for name, net in nets.items()}
    runs |= {f"loop-v{r}": (lambda x, c=nets[f"v{r}"].cells[0]: _slice_by_slice(c, x)) for r in (1, 2)}
    return median_seconds(runs, lambda: x, settings["repeats"])
