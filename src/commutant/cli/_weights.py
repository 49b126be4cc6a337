"""`commutant symmetries | align | merge | barrier | shrink`: weights of networks that users trained themselves."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from .._checks import one_of
from .._errors import InputError, require
from ..laws import parse_input
from ..parameters import Checkpoint, Permutation, PermutationSpec
from ..weights import FeatureMerger, interpolate, loss_barrier, match_many, weight_matching
from ._check import load_model, said
from ._fresh_inputs import refuse_a_change


def show_symmetries(model: str, inputs: list[str], also: Sequence[str] = ()) -> None:
    """Print the permutation symmetries of a model, and the reasons why other axes are fixed."""
    print(_spec(model, inputs, also)[1].summary())


def align(
    a: Path,
    b: Path,
    model: str,
    inputs: list[str],
    output: Path,
    *,
    overwrite: bool,
    restarts: int,
    also: Sequence[str] = (),
) -> None:
    """Write the second checkpoint with its units permuted to match the first."""
    first, second = Checkpoint(a), Checkpoint(b)
    copies = companions(model, second, output)
    check_free(output, overwrite, second, [first, second], copies)
    network, spec = _spec(model, inputs, also)
    found = weight_matching(spec, first, second, restarts=restarts, generator=torch.Generator().manual_seed(0))
    refuse_a_change(network, second, found, *_fresh(model, network, inputs, also), b)
    before, after = (_distance(spec, first, second, p) for p in (Permutation(spec), found))
    written = second.rewrite(output, found.apply_to, copies=copies)
    fewer = 0.0 if before == 0 else 1 - after / before
    print(f"distance of the weights: {before:.6g} before, {after:.6g} after ({fewer:.1%} less); {found!r}")
    print(f"wrote {', '.join(str(f) for f in written)}")


def merge(
    checkpoints: Sequence[Path],
    model: str,
    inputs: list[str],
    output: Path,
    weights: list[float] | None,
    *,
    overwrite: bool,
    aligned: bool,
    also: Sequence[str] = (),
) -> None:
    """Write the weighted mean of several checkpoints, after aligning them with the first."""
    if len(checkpoints) < 2:
        raise InputError(f"merge needs at least two checkpoints, got {len(checkpoints)}")
    states = [Checkpoint(path) for path in checkpoints]
    shares = weights or [1 / len(states)] * len(states)
    if len(shares) != len(states) or not abs(sum(shares) - 1) <= 1e-6:
        raise InputError(f"--weights must be {len(states)} numbers that sum to one, got {shares}")
    copies = companions(model, states[0], output)
    check_free(output, overwrite, states[0], states, copies)
    network, spec = _spec(model, inputs, also)
    for number, state in enumerate(states):
        spec.check(state)
        for key in states[0]:
            own, other = states[0].dtypes[key], state.dtypes[spec.name_in(state, key)]
            if own != other:
                raise InputError(f"{key!r} is {own} in {checkpoints[0]} and {other} in {checkpoints[number]}")
    if aligned:
        found = [Permutation(spec) for _ in states]
    elif len(states) == 2:
        found = [Permutation(spec), weight_matching(spec, states[0], states[1])]
    else:
        found = match_many(spec, states, generator=torch.Generator().manual_seed(0))
        back = found[0].inverse()  # the first is not permuted
        found = [p.compose(back) for p in found]
    for path, state, permutation in zip(checkpoints, states, found, strict=True):
        if permutation != Permutation(spec):
            refuse_a_change(network, state, permutation, *_fresh(model, network, inputs, also), path)

    def mean(key: str, value: torch.Tensor) -> torch.Tensor:
        parts = [{key: p.apply_to(key, s[spec.name_in(s, key)])} for p, s in zip(found, states, strict=True)]
        return interpolate(parts, shares)[key]

    written = states[0].rewrite(output, mean, copies=copies)
    print(f"merged {len(states)} checkpoints with weights {', '.join(f'{w:g}' for w in shares)}")
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
        print(
            "the model has batch norm: run commutant.weights.reset_batchnorm_stats on training data before you use it"
        )
    print(f"wrote {', '.join(str(f) for f in written)}")


def barrier(a: Path, b: Path, model: str, evaluate: str, points: int) -> None:
    """Print the loss along the straight line between two checkpoints."""
    networks = [loaded(model, path) for path in (a, b)]
    measure: Any = load_model(evaluate)
    if not callable(measure):
        raise InputError(f"{evaluate} must be a function from a module to its loss")

    def loss(network: nn.Module) -> Any:
        try:
            return measure(network)
        except (Exception, SystemExit) as error:
            raise InputError(f"{evaluate} did not return a number: {said(error)}") from error

    found = loss_barrier(networks[0], networks[1], loss, points=points)
    for t, value, above in zip(found.weights, found.losses, found.curve, strict=True):
        print(f"{t:6.3f}  loss {value:10.5f}  above the chord {above:10.5f}")
    print(f"barrier {found.sup:.5f}, half way {found.midpoint:.5f}")


def shrink(
    checkpoint: Path,
    model: str,
    inputs: list[str],
    output: Path,
    *,
    parameters: float | None,
    beta: float | None,
    criterion: str,
    overwrite: bool,
) -> None:
    """Write a smaller checkpoint in which similar channels are merged."""
    if (parameters is None) == (beta is None):
        raise InputError("give exactly one of --parameters and --beta")
    one_of("--criterion", criterion, ("saliency", "inout"))
    given = Checkpoint(checkpoint)
    copies = companions(model, given, output)
    check_free(output, overwrite, given, [given], copies)
    network = loaded(model, checkpoint)
    if "F64" in given.dtypes.values():  # the model alone is float32
        network = network.double()
        network.load_state_dict(dict(given), strict=False)
    example, outputs = example_of(model, network, inputs)
    merger = FeatureMerger(network, example, criterion=criterion, outputs=outputs)  # type: ignore[arg-type]
    small = merger.shrink(parameters=parameters, beta=beta)
    state = small.module.state_dict()
    written = given.rewrite(output, lambda key, value: state[key].to(value.dtype), copies=copies)
    print(small.summary())
    print(f"wrote {', '.join(str(f) for f in written)}")
    note = "; from_pretrained does not know these widths" if model.startswith("hf:") else ""
    print(f"load it with commutant.weights.resize(model, dict(commutant.parameters.Checkpoint(path))){note}")


def loaded(model: str, path: Path) -> nn.Module:
    """Return the model with a checkpoint's parameters; parameters tied to a stored one may be missing from the file."""
    network, state = build_model(model), Checkpoint(path)
    own = network.state_dict(keep_vars=True)
    there = {id(value) for key, value in own.items() if key in state}
    lacking = [key for key, value in own.items() if key not in state and id(value) not in there]
    if odd := sorted([*lacking, *(key for key in state if key not in own)]):
        raise InputError(f"{path} does not fit {model}: only one of them has {odd[0]!r}")
    for key, value in own.items():
        if key in state and tuple(value.shape) != state.shapes[key]:
            raise InputError(
                f"{path} does not fit {model}: {key!r} has shape {state.shapes[key]} in the file and "
                f"{tuple(value.shape)} in the model"
            )
    network.load_state_dict(dict(state), strict=False)
    return network


def build_model(model: str) -> nn.Module:
    """Return a module from `package.module:factory(arguments)`, or from `hf:FOLDER` with a `config.json`."""
    if model.startswith("hf:"):
        transformers = require("transformers", "hf")
        folder = Path(model.removeprefix("hf:"))
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} holds no config.json")
        try:
            config = transformers.AutoConfig.from_pretrained(folder)
            name = (getattr(config, "architectures", None) or [None])[0]
            kind = getattr(transformers, name, None) if name else None
            if hasattr(config, "use_cache"):
                config.use_cache = False
            made = kind(config) if kind else transformers.AutoModel.from_config(config)
        except (Exception, SystemExit) as error:
            raise InputError(f"no model could be built from {folder}: {said(error)}") from error
        return made.eval()  # type: ignore[no-any-return]
    found = load_model(model)
    if not isinstance(found, nn.Module):
        raise InputError(
            f"{model} must give a torch.nn.Module, got {type(found).__name__}; call a factory as {model}()"
        )
    return found.eval()


def _spec(model: str, inputs: list[str], also: Sequence[str] = ()) -> tuple[nn.Module, PermutationSpec]:
    network = build_model(model)
    example, outputs = example_of(model, network, inputs)
    more = [example_of(model, network, own.split(","), seed)[0] for seed, own in enumerate(also, start=1)]
    with warnings.catch_warnings():
        warnings.showwarning = on_one_line  # type: ignore[assignment]
        return network, PermutationSpec.from_module(network, example, outputs=outputs, also=more)


def on_one_line(message: Warning | str, *_: object) -> None:
    print(f"commutant: warning: {message}", file=sys.stderr)


def _fresh(
    model: str, network: nn.Module, inputs: list[str], also: Sequence[str]
) -> tuple[list[Any], Callable[[Any], Any] | None]:
    """Return inputs that were not used to derive a spec, half of them ten times as large, and the output selection."""
    found, outputs = [], None
    for seed, own in product(range(6), [inputs, *(own.split(",") for own in also)]):
        example, outputs = example_of(model, network, own, 100 + seed)
        size = 10 if seed % 2 else 1
        found.append(
            pytree.tree_map(
                lambda x, size=size: size * x if isinstance(x, torch.Tensor) and x.is_floating_point() else x, example
            )
        )
    return found, outputs


def example_of(model: str, network: Any, inputs: list[str], seed: int = 0) -> tuple[Any, Callable[[Any], Any] | None]:
    """Return an input for a model, and a function that selects the relevant part of its output, or None for all."""
    generator = torch.Generator().manual_seed(seed)
    example: Any
    select: Callable[[Any], Any] | None = None
    if model.startswith("hf:"):
        name = getattr(network, "main_input_name", "input_ids")
        if name != "input_ids" and not inputs:
            raise InputError(f"{model} reads {name}: give an example, such as --input 2x3x224x224")
        words = getattr(network.config, "vocab_size", 100)
        example = {name: parse_input((inputs or [f"ids:{words}:2x8"])[0])(generator)}
        if getattr(network.config, "is_encoder_decoder", False):
            example["decoder_input_ids"] = parse_input((inputs or ["", f"ids:{words}:2x5"])[-1])(generator)
        select = lambda out: out.logits if "logits" in out else out  # noqa: E731
    elif not inputs:
        raise InputError("give an example of the model's input: --input 2x3x32x32, or --input ids:100:2x8")
    else:
        example = tuple(parse_input(spec)(generator) for spec in inputs)
    return example, select


_COMPANIONS = (".model", ".spm", ".codes", ".tokenizer", ".tiktoken", ".jinja", ".py")
_NAMED = ("config", "token", "vocab", "merges", "spiece", "sentencepiece", "processor", "chat_template", "dict",
          "emoji", "normalizer", "byte_maps", "word_", "modules")  # fmt: skip


def companions(model: str, checkpoint: Checkpoint, output: Path) -> dict[Path, Path]:
    """Return the configuration and tokenizer files that `from_pretrained` needs, each with its new place."""
    (place, *_) = checkpoint.places(output).values()
    if not model.startswith("hf:") or place == output:
        return {}
    own = checkpoint.files[0].parent
    folder = own if (own / "config.json").is_file() else Path(model.removeprefix("hf:"))
    found = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        named = file.suffix in (".json", ".txt") and any(word in file.name for word in _NAMED)
        if file.is_file() and (named or file.suffix in _COMPANIONS):
            there = output / file.name
            if not (there.is_file() and there.read_bytes() == file.read_bytes()):
                found[file] = there
    return found


def check_free(
    output: Path, overwrite: bool, layout: Checkpoint, inputs: Sequence[Checkpoint], copies: Mapping[Path, Path]
) -> None:
    """Refuse to write over an input, or over an existing file without `--overwrite`."""
    try:
        places = {place.resolve() for place in (*layout.places(output).values(), *copies.values())}
        read = {file.resolve() for one in inputs for file in (*one.files, *([one.index] if one.index else []), *copies)}
        there = sorted(place for place in places if place.exists())
    except OSError as error:
        raise InputError(f"{output} can't be written: {error.strerror}") from None
    if places & read:
        raise InputError(f"{output} would overwrite {sorted(places & read)[0]}, which is one of the inputs")
    if there and not overwrite:
        raise InputError(f"{there[0]} exists; give --overwrite to replace it")


def _distance(spec: PermutationSpec, a: Checkpoint, b: Checkpoint, permutation: Permutation) -> float:
    total = 0.0
    for key in a:
        if key in b and key not in spec.buffers:
            total += float((a[key].double() - permutation.apply_to(key, b[key]).double()).square().sum())
            if not math.isfinite(total):
                raise InputError(f"{key!r} holds NaN, infinities or numbers too large for a distance")
    return total**0.5
