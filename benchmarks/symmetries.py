"""The permutation symmetries of many architectures: found, expected by hand, verified, and what a rival's graph does."""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from commutant.parameters import Permutation, PermutationSpec
from commutant.parameters._trace import trace
from commutant.parameters._verify import difference, generic, outputs

from .architectures import Architecture, everything


def symmetries() -> dict[str, Any]:
    rows = []
    for architecture in everything():
        torch.manual_seed(0)
        rows.append({"name": architecture.name, **_ours(architecture), **_rival(architecture)})
    exact = sum(row["groups"] == row["expected"] for row in rows)
    sound = sum(not row["refuted"] for row in rows)
    blind = sum(row["noticed"] != row["groups"] for row in rows)
    builds = sum(row["torch-pruning"] not in ("fails", "–") for row in rows)
    runs = sum(row["torch-pruning"] == "runs" for row in rows)
    ours, theirs = (sum(r[k] for r in rows if isinstance(r[k], float)) for k in ("seconds", "rival seconds"))
    meta = _a_billion_parameters()
    for row in rows:
        del row["refuted"], row["sizes"]
    return {
        "name": "symmetries",
        "title": "Permutation symmetries of architectures",
        "description": "`PermutationSpec.from_module` on networks with random weights, without a download. *Expected*: "
        "the number of groups that an expert would write down, with their sizes "
        "(`benchmarks/architectures.py`); *found* counts where the sizes agree too. *Error*: the largest relative "
        "change of "
        "an output in float64 when groups are permuted at random, over several draws. *Noticed*: groups for which "
        "permuting the axis of a single entry changes the output, so a wrong group would be detected. *MiB*: memory "
        "that the call added to the peak of the process. *torch-pruning*: whether its dependency graph can be built "
        "on the same model, and whether the model still runs after pruning a channel of every layer that it offers "
        "(*builds*: it does not run then; *stuck*: not finished in ten seconds).",
        "columns": ["family", "groups", "expected", "largest", "error", "noticed", "seconds", "MiB", "torch-pruning",
                    "rival seconds"],
        "rows": rows,
        "reading": f"{exact} of {len(rows)} have exactly the expected groups; in {sound} no group was refuted by the "
        f"verification; in {blind} some group could be broken at one entry unseen (the bias of a key, which softmax "
        f"ignores, or a unit that is dead on the example). torch-pruning builds a graph for {builds} and leaves a "
        "model that "
        f"runs for {runs}; it took {theirs:.0f} s in total; derivation and verification here took {ours:.0f} s. A "
        "Llama with "
        f"{meta['billions']:.1f} billion parameters on the meta device: {meta['groups']} groups in "
        f"{meta['seconds']:.1f} s.",
    }  # fmt: skip


def _ours(architecture: Architecture) -> dict[str, Any]:
    model, inputs = architecture.build().eval(), architecture.inputs()
    before = _reset_peak()
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        spec = PermutationSpec.from_module(model, inputs, outputs=architecture.outputs)
    seconds = time.perf_counter() - start
    memory = _peak() - before
    sizes = sorted(spec.sizes.values())
    return {
        "family": architecture.family,
        "groups": len(spec.sizes),
        "expected": len(architecture.expected)
        if sizes == sorted(architecture.expected)
        else f"{architecture.expected}",
        "sizes": sizes,
        "largest": max(sizes, default=0),
        "error": f"{spec.error:.0e}",
        "noticed": _noticed(spec, model, inputs, architecture.outputs),
        "seconds": seconds,
        "MiB": memory,
        "refuted": [str(w.message) for w in seen if "refuted" in str(w.message)],
    }


def _noticed(spec: PermutationSpec, model: nn.Module, inputs: Any, select: Callable[[Any], Any] | None) -> int:
    """Groups that, permuted on one axis of one entry only, change the output."""
    args, kwargs = (
        ((), inputs) if isinstance(inputs, dict) else (inputs if isinstance(inputs, tuple) else (inputs,), {})
    )
    handle = model.register_forward_hook(lambda m, a, out: select(out)) if select else None
    try:
        traced = trace(model, args, kwargs)
    finally:
        if handle:
            handle.remove()
    count = 0
    states = [generic(model.state_dict(), torch.Generator().manual_seed(i)) for i in range(2)]
    whole = [outputs(traced, state) for state in states]
    for group, size in spec.sizes.items():
        moved = Permutation(spec, {group: torch.arange(size).roll(1).expand(spec.shape(group)).clone()})
        for key, _ in spec.uses(group):
            broken = [{**state, key: moved.apply_to(key, state[key])} for state in states]
            if any(difference(w, outputs(traced, b)) > 1e-9 for w, b in zip(whole, broken, strict=True)):
                count += 1
                break
    return count


def _rival(architecture: Architecture) -> dict[str, Any]:
    try:
        import torch_pruning as tp
    except ImportError:
        return {"torch-pruning": "–", "rival seconds": "–"}
    torch.manual_seed(0)
    model, inputs = architecture.build().eval(), architecture.inputs()
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = tp.DependencyGraph().build_dependency(model, example_inputs=inputs)
    except Exception:
        return {"torch-pruning": "fails", "rival seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    prune = {nn.Linear: tp.prune_linear_out_channels, nn.Conv1d: tp.prune_conv_out_channels,
             nn.Conv2d: tp.prune_conv_out_channels}  # fmt: skip
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(10)
    try:
        layers = [m for m in model.modules() if type(m) in prune]
        for layer in layers[:-1]:  # the last one is the output
            group = graph.get_pruning_group(layer, prune[type(layer)], idxs=[0])
            if graph.check_pruning_group(group):
                group.prune()
        with torch.no_grad():
            model(**inputs) if isinstance(inputs, dict) else model(
                *(inputs if isinstance(inputs, tuple) else (inputs,))
            )
    except TimeoutError:
        return {"torch-pruning": "stuck", "rival seconds": seconds}
    except Exception:
        return {"torch-pruning": "builds", "rival seconds": seconds}
    finally:
        signal.alarm(0)
    return {"torch-pruning": "runs", "rival seconds": seconds}


def _stop(*_: Any) -> None:
    raise TimeoutError


def _a_billion_parameters() -> dict[str, Any]:
    import transformers as t

    config = t.LlamaConfig(vocab_size=128_256, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32,
                           num_key_value_heads=8, intermediate_size=8192, use_cache=False)  # fmt: skip
    with torch.device("meta"):
        model, ids = t.LlamaForCausalLM(config).eval(), torch.zeros(2, 16, dtype=torch.long)
    start = time.perf_counter()
    spec = PermutationSpec.from_module(model, {"input_ids": ids}, outputs=lambda out: out.logits)
    return {"billions": sum(p.numel() for p in model.parameters()) / 1e9, "groups": len(spec.sizes),
            "seconds": time.perf_counter() - start}  # fmt: skip


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10


def _reset_peak() -> float:
    """Forget the peak of this process (Linux); its size now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


ALL = (symmetries,)
