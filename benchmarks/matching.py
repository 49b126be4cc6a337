"""Weight matching beside `rebasin`: tracing and matching, the inner product reached, planted permutations found."""

from __future__ import annotations

import copy
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from commutant.parameters import Permutation, PermutationSpec
from commutant.weights import weight_matching


class _Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(F.relu(self.up(self.norm(x))))


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
                         nn.Linear(512, 10))  # fmt: skip


def _residual(width: int = 256, inner: int = 512) -> nn.Module:
    return nn.Sequential(nn.Linear(32, width), *[_Block(width, inner) for _ in range(4)], nn.Linear(width, 10))


def _transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True)
    return nn.Sequential(nn.Linear(32, 256), layer, nn.Linear(256, 10))


SUBJECTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "MLP 784-512-512-512-10": (_mlp, (4, 784), 100),
    "residual MLP, 4 blocks of 256-512-256": (_residual, (4, 32), 100),
    "transformer layer, 256 wide, 8 heads": (_transformer, (4, 8, 32), 100),
}


def matching() -> dict[str, Any]:
    rows = [_row(name, *subject) for name, subject in SUBJECTS.items()]
    return {
        "name": "matching",
        "title": "Weight matching",
        "description": "From two modules with independent random weights and an example input to a permuted copy of the "
        "second, tracing included, in seconds (median of five, taken in turns); and the share of the first module's squared "
        "norm that the inner product with the permuted second reaches. *Planted*: of that many random permutations of one "
        "module's units, drawn from all of its symmetries, how many are undone exactly.",
        "columns": ["groups", "seconds", "rebasin seconds", "ratio", "inner product", "rebasin inner product", "planted",
                    "rebasin planted"],
        "rows": rows,
        "reading": f"`weight_matching` takes {_range(r['ratio'] for r in rows)} of the time of rebasin. "
        "rebasin permutes what it finds by walking the modules' graph, which leaves out heads and channels within heads.",
    }  # fmt: skip


def _range(values: Any) -> str:
    found = sorted(float(v) for v in values)
    return f"{found[0]:.3g} to {found[-1]:.3g}"


def _row(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], seeds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    a, b, x = make().eval(), make().eval(), torch.randn(shape)
    ours, theirs, moved, rival = [], [], None, None
    for _ in range(5):
        start = time.perf_counter()
        spec = PermutationSpec.from_module(a, x, verify=False)
        moved = weight_matching(spec, a, b).apply(b)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        rival = _rebasin(a, b, x)
        theirs.append(time.perf_counter() - start)
    assert moved is not None
    found = rival_found = 0
    for seed in range(seeds):
        planted = Permutation.random(spec, torch.Generator().manual_seed(seed)).apply(a)
        found += _equal(weight_matching(spec, a, planted).apply(planted), a)
        undone = _rebasin(a, planted, x)
        rival_found += undone is not None and _equal(undone, a)
    mine, other = statistics.median(ours), statistics.median(theirs)
    return {
        "name": name,
        "groups": len(spec.sizes),
        "seconds": mine,
        "rebasin seconds": other if rival is not None else "fails",
        "ratio": mine / other,
        "inner product": _inner(a, moved),
        "rebasin inner product": _inner(a, rival) if rival is not None else "fails",
        "planted": f"{found} of {seeds}",
        "rebasin planted": f"{rival_found} of {seeds}" if rival is not None else "fails",
    }


def _rebasin(a: nn.Module, b: nn.Module, x: torch.Tensor) -> nn.Module | None:
    from rebasin import PermutationCoordinateDescent

    target, source = copy.deepcopy(a), copy.deepcopy(b)
    try:
        search = PermutationCoordinateDescent(target, source, x)
        search.rebasin()
    except Exception:
        return None
    return source


def _inner(a: nn.Module, b: nn.Module) -> float:
    first, second = dict(a.named_parameters()), dict(b.named_parameters())
    total = sum(float((first[k].detach().double() * second[k].detach().double()).sum()) for k in first)
    return total / sum(float(p.detach().double().square().sum()) for p in first.values())


def _equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def matching_large() -> dict[str, Any]:
    rows = []
    for name in ("ResNet-50", "GPT-2 small"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # peak memory is that of a process of its own
            rows.append(pool.apply(_large, (name,)))
    return {
        "name": "matching-large",
        "title": "Weight matching of large models",
        "description": "Two models of `transformers` with independent random weights in float32, from the modules to the "
        "permutation. *Peak*: the most memory that the process held beyond the two models, as a multiple of one of them.",
        "columns": ["parameters", "groups", "derive seconds", "match seconds", "peak"],
        "rows": rows,
        "reading": f"Both are matched within {max(r['match seconds'] for r in rows):.0f} seconds on two cores; beyond the two "
        f"models at most {max(r['peak'] for r in rows):.1f} times the size of one is held.",
    }


def _large(name: str) -> dict[str, Any]:
    import transformers

    torch.manual_seed(0)
    if name == "ResNet-50":
        kind, config = transformers.ResNetForImageClassification, transformers.ResNetConfig(num_labels=1000)
        example: dict[str, Any] = {"pixel_values": torch.randn(2, 3, 64, 64)}
    else:
        kind, config = transformers.GPT2LMHeadModel, transformers.GPT2Config()
        example = {"input_ids": torch.randint(0, 50257, (2, 16)), "use_cache": False}
    a, b = kind(config).eval(), kind(config).eval()
    size = sum(p.numel() * p.element_size() for p in a.parameters())
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    spec = PermutationSpec.from_module(a, example, outputs=lambda out: out.logits, verify=False)
    derived = time.perf_counter() - start
    start = time.perf_counter()
    weight_matching(spec, a, b)
    return {
        "name": name,
        "parameters": float(sum(p.numel() for p in a.parameters())),
        "groups": len(spec.sizes),
        "derive seconds": derived,
        "match seconds": time.perf_counter() - start,
        "peak": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held) / size,
    }


ALL = (matching, matching_large)
