"""Measurements of the experiments."""

from __future__ import annotations

import statistics
import warnings
from functools import partial

import torch
from torch import Tensor, nn

from ...evidence import Context, Measurement
from ...weights import (
    Basis,
    InteractionBasis,
    degeneracy_report,
    edges_required,
    effective_parameters,
    factorize,
    interaction_graph,
)
from .._shared.classifiers import Part, accuracy, cross_entropy, image_parts
from .._shared.networks import mlp

SECTIONS = ["0", "2", "4"]
KINDS = ("local", "global", "pca", "random", "neuron")


def measure_digits(context: Context) -> Measurement:
    """Return how many interactions of each section keep the accuracy on digits within one point."""
    model, x, held = _trained(context)
    out: Measurement = {"accuracy": accuracy(model, held)}
    for kind in KINDS:
        basis = _basis(model, kind, x, context.generator(5))
        edges = basis.edges([x])
        for place, name in enumerate(SECTIONS):
            out[f"{kind}@{place}"] = float(max(1, edges_required(basis, edges, name, partial(_score, held), 0.01)))
    return out


def measure_ranks(context: Context) -> Measurement:
    """Return the accuracy on digits if each layer reads a few coordinates only, by their number."""
    model, x, held = _trained(context)
    out: Measurement = {"accuracy": accuracy(model, held)}
    for kind in ("local", "global", "pca", "random"):
        basis = _basis(model, kind, x, context.generator(5))
        for rank in context.settings["ranks"]:
            own = {name: min(rank, len(basis.bases[name].strengths)) for name in SECTIONS}
            out[f"{kind}@{rank}"] = accuracy(factorize(basis, own), held)
        out[kind] = statistics.mean(out[f"{kind}@{rank}"] for rank in context.settings["ranks"])
    return out


def _trained(context: Context) -> tuple[nn.Module, Tensor, Part]:
    """Return a network trained on digits, the training inputs and the test part, in float64."""
    train, test = image_parts(context)
    x, y = (train[0].flatten(1), train[1])
    held = (test[0].flatten(1), test[1])
    width = context.settings["width"]

    def draw(generator: torch.Generator, count: int) -> Part:
        rows = torch.randint(0, len(x), (count,), generator=generator).to(x.device)
        return x[rows], y[rows]

    model = context.train(
        "network", lambda: mlp([x.shape[1], width, width, 10]), draw, cross_entropy, steps=context.settings["steps"],
        batch_size=64, learning_rate=1e-3,
    ).eval().double()  # fmt: skip
    return model, x.double(), (held[0].double(), held[1])


def _score(part: Part, model: nn.Module) -> float:
    return accuracy(model, part)


def _basis(model: nn.Module, kind: str, x: Tensor, generator: torch.Generator) -> InteractionBasis:
    """Return bases of one kind; random ones are principal axes, turned at random."""
    found = InteractionBasis(model, SECTIONS, "pca" if kind == "random" else kind).fit([x])  # type: ignore[arg-type]
    if kind == "random":
        for name in SECTIONS:
            own = found.bases[name]
            size = len(own.strengths)
            turn = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
            strengths = (turn.mT * own.strengths @ turn).diagonal()
            found.bases[name] = Basis(own.mean, own.directions @ turn, turn.mT @ own.inverse, strengths)
    return found


def measure_blocks(context: Context) -> Measurement:
    """Return whether two networks side by side, behind a rotation of white inputs, are told apart."""
    s, generator = context.settings, context.generator(1)
    d = 2 * s["inputs"]
    white = torch.randn(s["samples"], d, generator=generator, dtype=torch.float64)
    white = torch.linalg.qr(white - white.mean(0)).Q * s["samples"] ** 0.5
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    model = mlp([d, 2 * s["hidden"], 2 * s["hidden"], 2 * s["outputs"]]).double()
    with torch.no_grad():
        for layer in (m for m in model if isinstance(m, nn.Linear)):
            rows, columns = layer.weight.shape
            block = torch.kron(torch.eye(2), torch.ones(rows // 2, columns // 2))
            drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
            layer.weight.copy_(drawn * block * (4 / columns) ** 0.5)
            layer.bias.copy_(0.1 * torch.randn(rows, generator=generator, dtype=torch.float64))
        first = model[0]
        first.weight.copy_(first.weight @ turn)  # type: ignore[operator]
    out: Measurement = {}
    for kind in ("local", "pca"):
        basis = InteractionBasis(model, SECTIONS, kind).fit([white])  # type: ignore[arg-type]
        share = (turn @ basis.bases["0"].directions).square()
        half = share[: s["inputs"]].sum(0) / share.sum(0)
        graph = interaction_graph(basis, basis.edges([white]), resolution=0.5)
        groups = {data["community"] for node, data in graph.nodes(data=True) if graph.degree(node)}
        out |= {
            f"{kind}-purity": float(torch.maximum(half, 1 - half).min()),
            f"{kind}-communities": float(len(groups)),
            f"{kind}-modularity": float(graph.graph["modularity"]),
        }
    return out


def measure_counts(context: Context) -> Measurement:
    """Return by how many the counted effective parameters differ from the exact rank, for four kinds of network."""
    generator = context.generator(1)
    x = torch.randn(context.settings["samples"], 6, generator=generator, dtype=torch.float64)
    low = x[:, :4] @ torch.randn(4, 6, generator=generator, dtype=torch.float64)
    torch.manual_seed(context.seed * 7_919 + 3)
    nets = [(mlp([6, 10, 3]), x), (mlp([6, 14, 2]), x), (mlp([6, 10, 3]), low), (mlp([6, 10, 3]), x)]
    with torch.no_grad():
        for part in nets[-1][0][0].parameters():
            for unit in (1, 2):  # three units that switch on the same data
                part[unit] = (unit + 0.5) * part[0]
    wrong, naive = [], []
    for net, data in nets:
        exact = effective_parameters(net.double(), data.split(500))
        report = degeneracy_report(net, ["0", "2"], data.split(500))
        wrong.append(abs(report.effective - exact))
        naive.append(abs(report.parameters - exact))
    return {"count-error": float(max(wrong)), "parameters-error": float(min(naive)), "cases": float(len(nets))}


def measure_invariance(context: Context) -> Measurement:
    """Return how much strengths and interactions change if the activations between two layers do."""
    generator = context.generator(1)
    out: Measurement = {"local": 0.0, "edges": 0.0, "pca": float("inf"), "cases": 0.0}
    for width in context.settings["sizes"]:
        torch.manual_seed(context.seed * 7_919 + width)
        model = mlp([width, width, width, 5]).double()
        x = torch.randn(context.settings["samples"], width, generator=generator, dtype=torch.float64)
        change = torch.randn(width, width, generator=generator, dtype=torch.float64) / width**0.5
        change = change + 2 * torch.eye(width, dtype=torch.float64)
        between, last = nn.Linear(width, width, bias=False).double(), nn.Linear(width, 5).double()
        with torch.no_grad():
            between.weight.copy_(change)
            last.weight.copy_(torch.linalg.solve(change.mT, model[4].weight.mT).mT)  # type: ignore[union-attr,operator]
            last.bias.copy_(model[4].bias)  # type: ignore[union-attr,arg-type]
        twin = nn.Sequential(*list(model.children())[:4], between, last)
        for kind in ("local", "pca"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                one = InteractionBasis(model, SECTIONS, kind).fit([x])  # type: ignore[arg-type]
                two = InteractionBasis(twin, ["0", "2", "5"], kind).fit([x])  # type: ignore[arg-type]
            moved = _relative(one.bases["4"].strengths, two.bases["5"].strengths)
            if kind == "pca":
                out["pca"] = min(out["pca"], moved)
                continue
            mine, theirs = one.edges([x]), two.edges([x])
            pairs = [(mine[a], theirs[b]) for a, b in zip(SECTIONS, ("0", "2", "5"), strict=True)]
            out["local"] = max(out["local"], moved)
            out["edges"] = max(out["edges"], max(_relative(a, b) for a, b in pairs))
        out["cases"] += 1
    return out


def _relative(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two tensors over the largest entry of the first."""
    return float((a - b).abs().max() / a.abs().max()) if a.shape == b.shape else 1.0
