"""Commands on the weights of networks that users trained themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Model = Annotated[str, typer.Option(help="package.module:factory(...), or hf:FOLDER with a config.json")]
Example = Annotated[
    list[str] | None, typer.Option(help="shape of an argument, once for each, such as 2x3x32x32 or ids:50:2x8")
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        help="further example for other paths through the model, such as 2x3x64x64; arguments separated by commas"
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="file to write, or folder for a checkpoint in shards")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace existing files")]


@app.command()
def symmetries(
    model: Annotated[str, typer.Argument(help="package.module:factory(...), or hf:FOLDER with a config.json")],
    input: Example = None,
    also: Also = None,
) -> None:
    """Print the permutation symmetries of your own model, and the reasons why other axes are fixed."""
    from ._weights import show_symmetries

    show_symmetries(model, input or [], also or [])


@app.command()
def align(
    a: Annotated[Path, typer.Argument(help="safetensors file, index or folder; not changed")],
    b: Annotated[Path, typer.Argument(help="checkpoint of the same architecture")],
    model: Model,
    output: Output,
    input: Example = None,
    also: Also = None,
    overwrite: Overwrite = False,
    restarts: Annotated[int, typer.Option(min=0, help="number of further searches from random permutations")] = 0,
) -> None:
    """Permute the units of checkpoint B to bring its weights close to those of A, without changing its function."""
    from ._weights import align as run

    run(a, b, model, input or [], output, overwrite=overwrite, restarts=restarts, also=also or [])


@app.command()
def merge(
    checkpoints: Annotated[list[Path], typer.Argument(help="two or more checkpoints of the same architecture")],
    model: Model,
    output: Output,
    input: Example = None,
    also: Also = None,
    weights: Annotated[
        str | None, typer.Option(help="weight of each checkpoint, such as 0.5,0.5; equal by default")
    ] = None,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="skip the alignment, for checkpoints that are aligned already")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Align checkpoints with each other and write their weighted mean."""
    from .._errors import InputError
    from ._weights import merge as run

    try:
        shares = None if weights is None else [float(w) for w in weights.split(",")]
    except ValueError:
        raise InputError(f"--weights must be numbers separated by commas, got {weights!r}") from None
    run(checkpoints, model, input or [], output, shares, overwrite=overwrite, aligned=aligned, also=also or [])


@app.command()
def barrier(
    a: Annotated[Path, typer.Argument(help="safetensors file, index or folder")],
    b: Annotated[Path, typer.Argument(help="checkpoint of the same architecture, usually aligned with A")],
    model: Model,
    evaluate: Annotated[str, typer.Option(help="package.module:function that returns the loss of a module")],
    points: Annotated[int, typer.Option(help="number of points on the line, odd")] = 11,
) -> None:
    """Print the loss along the straight line between two checkpoints."""
    from ._weights import barrier as run

    run(a, b, model, evaluate, points)


@app.command()
def shrink(
    checkpoint: Annotated[Path, typer.Argument(help="safetensors file, index or folder; not changed")],
    model: Model,
    output: Output,
    input: Example = None,
    parameters: Annotated[float | None, typer.Option(help="share of the parameters to keep, at most")] = None,
    beta: Annotated[
        float | None, typer.Option(help="merge pairs closer than this share of the largest distance")
    ] = None,
    criterion: Annotated[str, typer.Option(help="distance between channels: saliency or inout")] = "saliency",
    overwrite: Overwrite = False,
) -> None:
    """Merge similar channels of your own model without data, and write the smaller checkpoint."""
    from ._weights import shrink as run

    cut = {"parameters": parameters, "beta": beta}
    run(checkpoint, model, input or [], output, **cut, criterion=criterion, overwrite=overwrite)


@app.command()
def nest(
    model: Annotated[str, typer.Argument(help="package.module:factory(...), or hf:FOLDER with a config.json")],
    input: Example = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(
            help="what to cut, once for each: width=auto, heads=auto, depth=blocks.*, or groups such as a=0+2"
        ),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="sizes of a dimension, counts or shares, such as depth=2,4 or width=0.5,1.0"),
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="weights of which to write a sub-network")] = None,
    budget: Annotated[str | None, typer.Option(help="sub-network to write, such as width=0.5,depth=2")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write, or folder for hf:")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Show the nested sub-networks of your own model and what each costs; with a checkpoint, write one of them."""
    from ._nest import nest as run

    run(model, input or [], dim or [], size or [], checkpoint=checkpoint, budget=budget, output=output,
        overwrite=overwrite)  # fmt: skip
