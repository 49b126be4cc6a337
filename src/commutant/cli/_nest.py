"""`commutant nest`: what a model costs at each size, and checkpoints of its sub-networks."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_model
from torch import nn

from .._errors import InputError
from ..parameters import Checkpoint
from ..weights import Menu, SortedModule, cost
from ._weights import build_model, check_free, companions, example_of, loaded, on_one_line

_SIZES = "0.25,0.5,0.75,1.0"
_EXAMPLES = {"--dim": "width=auto or depth=blocks.*", "--size": "width=0.25,0.5,1.0", "--budget": "width=0.5,depth=2"}
_CONFIGURATIONS = ("config.json", "generation_config.json")


def nest(
    model: str,
    inputs: list[str],
    dims: Sequence[str],
    sizes: Sequence[str],
    *,
    checkpoint: Path | None,
    budget: str | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Print the sub-networks of a model with their costs, or write the checkpoint of one."""
    if checkpoint is None or budget is None or output is None:
        if any(option is not None for option in (checkpoint, budget, output)):
            raise InputError("to write a sub-network, give --checkpoint, --budget and --output together")
        _show(_nested(build_model(model), model, inputs, dims, sizes))
        return
    given, whole_folder = Checkpoint(checkpoint), model.startswith("hf:")
    if whole_folder == (output.suffix == ".safetensors"):
        raise InputError(f"{output} must be {'a folder' if whole_folder else 'a file that ends in .safetensors'}")
    copies = {k: v for k, v in companions(model, given, output).items() if k.name not in _CONFIGURATIONS}
    check_free(output, overwrite, given, [given], copies)
    nested = _nested(loaded(model, checkpoint), model, inputs, dims, sizes)
    chosen = nested.menu.named({name: _numbers(name, text)[0] for name, text in pairs("--budget", budget.split(","))})
    try:
        if whole_folder:
            from ..weights.huggingface import extract_pretrained

            extract_pretrained(nested, chosen).save_pretrained(output)
            for file, place in copies.items():
                shutil.copyfile(file, place)
        else:
            partial = output.with_name(output.name + ".partial")
            output.parent.mkdir(parents=True, exist_ok=True)
            save_model(nested.extract(chosen), str(partial))
            partial.replace(output)
    except OSError as error:
        raise InputError(f"{output} can't be written: {error.strerror}") from None
    print(f"{chosen}: {nested.count(chosen):,} of {nested.count(None):,} parameters")
    print(f"wrote {output}")
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in nested.module.modules()):
        print(
            "the model has batch norm: run commutant.weights.reset_batchnorm_stats on training data before you use it"
        )


def _nested(
    network: nn.Module, model: str, inputs: list[str], dims: Sequence[str], sizes: Sequence[str]
) -> SortedModule:
    named = dict(pairs("--dim", dims or ["width=auto"]))
    wanted = dict.fromkeys(named, _SIZES) | dict(pairs("--size", sizes))
    menu = Menu.product(**{name: _numbers(name, text) for name, text in wanted.items()})
    example, outputs = example_of(model, network, inputs)
    groups: dict[str, str | list[str]] = {k: v if v == "auto" else v.split("+") for k, v in named.items()}
    with warnings.catch_warnings():
        warnings.showwarning = on_one_line  # type: ignore[assignment]
        return SortedModule(network, example, groups, menu, outputs=outputs)


def _show(nested: SortedModule) -> None:
    for name, own in nested.dims.items():
        shown = [f"{where} ({size})" for where, size in own.sizes.items()]
        more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
        print(f"{name}: {', '.join(shown[:6])}{more}")
    for group, why in nested.refused.items():
        print(f"left whole: {group}: {why}")
    costs = [cost(nested, budget) for budget in nested.menu]
    wide = max(len(str(c.budget)) for c in costs)
    print(f"\n{'budget':<{wide}}  {'parameters':>14}  {'multiplications':>16}")
    for c in costs:
        print(f"{c.budget!s:<{wide}}  {c.parameters:>14,}  {c.macs:>16,}")
    print("\ntested against the full model; train them together with commutant.weights.sorted_loss")


def pairs(option: str, given: Sequence[str]) -> list[tuple[str, str]]:
    """Return the names and values of options of the form `name=value`."""
    found: dict[str, str] = {}
    for text in given:
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise InputError(f"{option} must be name=value, such as {_EXAMPLES[option]}, got {text!r}")
        if name in found:
            raise InputError(f"{option} gives {name!r} twice")
        found[name] = value
    return list(found.items())


def _numbers(name: str, text: str) -> list[int | float]:
    try:
        return [float(part) if "." in part else int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"the sizes of {name!r} must be numbers such as 4,8 or 0.5,1.0, got {text!r}") from None
