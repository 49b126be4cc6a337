"""Weight matching beside `rebasin`: seconds, the inner product reached, planted permutations found."""

from __future__ import annotations

import copy
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
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


class _Bottleneck(nn.Module):
    """One by one, grouped three by three, one by one, and a shortcut."""

    def __init__(self, before: int, width: int, after: int, stride: int, groups: int) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.norm_b, self.c, self.norm_c = (
            nn.BatchNorm2d(width),
            nn.Conv2d(width, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = nn.Identity() if before == after and stride == 1 else nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.norm_b(self.b(F.relu(self.norm_a(self.a(x))))))
        return F.relu(self.norm_c(self.c(h)) + self.shortcut(x))


class _Grouped(nn.Module):
    """A residual network of grouped convolutions: the stem's width, then depth, width, output and groups of each stage."""

    def __init__(self, config: tuple[int, Sequence[tuple[int, int, int, int]], int]) -> None:
        super().__init__()
        width, stages, first = config
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        for number, (depth, inner, after, groups) in enumerate(stages):
            for i in range(depth):
                layers.append(_Bottleneck(width, inner, after, 2 if i == 0 and number >= first else 1, groups))
                width = after
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


GROUPED: dict[str, Any] = {
    "RegNetX-002": (32, [(1, 24, 24, 3), (1, 56, 56, 7), (4, 152, 152, 19), (7, 368, 368, 46)], 0),
    "ResNeXt-50": (64, [(d, 128 * 2**k, 256 * 2**k, 32) for k, d in enumerate((3, 4, 6, 3))], 1),
}
WAYS = ("matching", "derived", "verified")
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
        "description": "Two modules with independent random weights; times in seconds (median of fifteen alternating "
        "runs). "
        "*Matching*: from a spec to a permuted copy of the second module. *Derived*: from the modules and an example "
        "input, including the derivation of the spec. *Verified*: also including its verification in float64, the "
        "default. The ratios are rebasin's time over each of the three. *Inner product*: inner product of the first "
        "module with the permuted second, as a share of the first one's squared norm. *Planted*: number of random "
        "permutations of one module's units, drawn from all its symmetries, that are recovered exactly.",
        "columns": ["groups", *(column for way in WAYS for column in (way, f"{way} ratio")), "rebasin", "inner product",
                    "rebasin inner product", "planted", "rebasin planted"],
        "rows": rows,
        "reading": f"rebasin takes {_range(r['matching ratio'] for r in rows)} times as long as `weight_matching` "
        "alone, "
        f"{_range(r['derived ratio'] for r in rows)} times as long as derivation and matching, and "
        f"{_range(r['verified ratio'] for r in rows)} times as long with the verification that users get by default. "
        "rebasin finds its groups in the graph of modules, without heads and channels within heads, and verifies "
        "nothing.",
    }  # fmt: skip


def _range(values: Any) -> str:
    found = sorted(float(v) for v in values)
    return f"{found[0]:.3g} to {found[-1]:.3g}"


def _row(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], seeds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    a, b, x = make().eval(), make().eval(), torch.randn(shape)
    times: dict[str, list[float]] = {way: [] for way in (*WAYS, "rebasin")}
    moved = rival = None
    for _ in range(15):
        start = time.perf_counter()
        PermutationSpec.from_module(a, x)
        verified = time.perf_counter() - start
        start = time.perf_counter()
        spec = PermutationSpec.from_module(a, x, verify=False)
        derived = time.perf_counter() - start
        start = time.perf_counter()
        moved = weight_matching(spec, a, b).apply(b)
        matched = time.perf_counter() - start
        for way, spent in zip(WAYS, (0.0, derived, verified), strict=True):
            times[way].append(spent + matched)
        start = time.perf_counter()
        rival = _rebasin(a, b, x)
        times["rebasin"].append(time.perf_counter() - start)
    assert moved is not None
    found = rival_found = 0
    for seed in range(seeds):
        planted = Permutation.random(spec, torch.Generator().manual_seed(seed)).apply(a)
        found += _equal(weight_matching(spec, a, planted).apply(planted), a)
        undone = _rebasin(a, planted, x)
        rival_found += undone is not None and _equal(undone, a)
    spent = {way: statistics.median(own) for way, own in times.items()}
    return {
        "name": name,
        "groups": len(spec.sizes),
        **{way: spent[way] for way in WAYS},
        **{f"{way} ratio": spent["rebasin"] / spent[way] if rival is not None else "fails" for way in WAYS},
        "rebasin": spent["rebasin"] if rival is not None else "fails",
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
    for name in ("ResNet-50", "GPT-2 small", "RegNetX-002", "ResNeXt-50"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # peak memory is that of a process of its own
            rows.append(pool.apply(_large, (name,)))
    return {
        "name": "matching-large",
        "title": "Weight matching of large models",
        "description": "Two models with independent random weights in float32, timed from the modules to the "
        "permutation. The models are from `transformers`, or rebuilt from published hyperparameters (RegNetX-002 and "
        "ResNeXt-50 32x4d). *Peak*: peak memory of the process beyond the two models, as a multiple of the size of "
        "one.",
        "columns": ["parameters", "groups", "derive seconds", "match seconds", "peak"],
        "rows": rows,
        "reading": f"All are matched within {max(r['match seconds'] for r in rows):.0f} seconds on two cores; the "
        f"peak memory beyond the two models is at most {max(r['peak'] for r in rows):.1f} times the size of one.",
    }


def _large(name: str) -> dict[str, Any]:
    import transformers

    torch.manual_seed(0)
    outputs = lambda out: out.logits  # noqa: E731
    if name in GROUPED:
        kind, config = _Grouped, GROUPED[name]
        example: Any = torch.randn(2, 3, 64, 64)
        outputs = None
    elif name == "ResNet-50":
        kind, config = transformers.ResNetForImageClassification, transformers.ResNetConfig(num_labels=1000)
        example = {"pixel_values": torch.randn(2, 3, 64, 64)}
    else:
        kind, config = transformers.GPT2LMHeadModel, transformers.GPT2Config()
        example = {"input_ids": torch.randint(0, 50257, (2, 16)), "use_cache": False}
    a, b = kind(config).eval(), kind(config).eval()  # type: ignore[arg-type]
    size = sum(p.numel() * p.element_size() for p in a.parameters())
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    spec = PermutationSpec.from_module(a, example, outputs=outputs, verify=False)
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
