"""Commands; each imports its dependencies when it runs, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .._errors import CommutantError
from ._weight_commands import app as weight_commands


class _Commands(TyperGroup):
    """Group of commands that turns every failure into an error of this library, with exit code 2.

    Otherwise the command-line parser exits with 1 on `EOFError` and on a closed pipe, and `SystemExit` from a user's
    module ends the process with any code.
    """

    def make_context(self, *args: Any, **options: Any) -> Any:
        try:
            return super().make_context(*args, **options)  # prints what --help and --version ask for
        except BaseException as error:
            _end_without_a_reader(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (CommutantError, KeyboardInterrupt):
            raise
        except BaseException as error:
            _end_without_a_reader(error)
            if hasattr(error, "exit_code"):  # the parser's own
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            raise CommutantError(f"{said} (at {place.filename}:{place.lineno})") from error


def _end_without_a_reader(error: BaseException) -> None:
    """End with 2 if nobody reads the output any more: rich and the parser would end with 1."""
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise typer.Exit(2) from None


app = typer.Typer(
    name="commutant",
    cls=_Commands,
    help="Symmetry of data and weights in PyTorch: check laws, merge checkpoints, reproduce papers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"commutant {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    pass


Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="PAPER[/CLAIM]", help="papers or single claims; all papers by default"),
]
Runs = Annotated[Path, typer.Option(help="folder of all runs")]
Scale = Annotated[str, typer.Option(help="small (minutes on two cores) or full (the setting of the paper)")]


@app.command()
def papers() -> None:
    """List the papers and their claims."""
    from ._show import show_papers

    show_papers()


def _seeds(text: str | None) -> Any:
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"--seeds must be a whole number of at least 1, or auto, got {text}")
    return int(text)


@app.command()
def reproduce(
    targets: Targets = None,
    scale: Scale = "small",
    runs: Runs = Path("runs"),
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="number of seeds (default: that of the claim), or auto: chosen from a pilot with other seeds",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="number of runs at a time; by default one per core, or one on GPUs")
    ] = None,
    backend: Annotated[str, typer.Option(help="joblib backend: loky (this machine), ray or dask")] = "loky",
    accelerator: Annotated[str, typer.Option(help="cpu, gpu or auto")] = "cpu",
    devices: Annotated[int, typer.Option(min=1, help="number of devices per run")] = 1,
    strategy: Annotated[str, typer.Option(help="Fabric strategy for several devices: ddp or fsdp")] = "auto",
    precision: Annotated[str, typer.Option(help="Fabric precision: 32-true, bf16-mixed, 64-true ...")] = "32-true",
    data_dir: Annotated[Path | None, typer.Option(help="local folder of data sets")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="write TensorBoard logs into the folder of each run")
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0, help="time budget: run the cheapest experiments that fit into it, and start nothing after it"
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="exit with 1 if a claim is refuted")] = False,
) -> None:
    """Re-run the claims of papers and judge them; finished runs are kept, interrupted ones resume."""
    from ._reproduce import reproduce as run

    try:
        code = run(
            targets or [],
            scale=scale,
            runs=runs,
            seeds=_seeds(seeds),
            jobs=jobs,
            backend=backend,
            minutes=minutes,
            strict=strict,
            options={
                "accelerator": accelerator,
                "devices": devices,
                "strategy": strategy,
                "precision": precision,
                "data_dir": None if data_dir is None else str(data_dir),
                "tensorboard": tensorboard,
            },
        )
    except KeyboardInterrupt:
        print("\ncommutant: stopped; the same command resumes from here", file=sys.stderr)
        code = 130
    raise typer.Exit(code)


@app.command()
def mask(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="MASK",
            help="causal:N, full:N, prefix:N:P, window:N:W, a boolean matrix in a file (.npy, .pt; True = attends), "
            "a Hugging Face config.json:N, or package.module:mask_function:N as for flex_attention",
        ),
    ],
    moves: Annotated[
        str, typer.Option(help="inverse-permutation, reverse, all, or pairs of positions such as '0->3,4->1'")
    ] = "inverse-permutation",
    layers: Annotated[int | None, typer.Option(min=1, help="number of layers; by default any")] = None,
    scratch: Annotated[int, typer.Option(min=0, help="number of scratch tokens after the N positions")] = 0,
    order: Annotated[
        str, typer.Option(help="PY: the permutation comes before the permuted rows; YP: after them")
    ] = "PY",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Tell whether an attention mask can carry a data movement, for any weights; exit with 1 if it can't.

    Example: commutant mask causal:20 --moves inverse-permutation
    """
    from ._mask import show_mask

    raise typer.Exit(show_mask(spec, moves, layers, scratch, order, as_json))


@app.command()
def report(
    runs: Runs = Path("runs"),
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of the site")] = Path("report"),
    results: Annotated[Path, typer.Option(help="folder of records, shown for claims that were not run here")] = Path(
        "results"
    ),
    laws: Annotated[bool, typer.Option(help="check the laws that each system states")] = True,
) -> None:
    """Build a self-contained HTML site from the runs on disk, and from records where there is no run."""
    from ..report import build

    index = build(runs, output, results=results, check_laws=laws)
    print(f"report: {index.resolve()}")


@app.command()
def record(
    targets: Targets = None,
    scale: Scale = "small",
    runs: Runs = Path("runs"),
    results: Annotated[Path, typer.Option(help="folder of the records")] = Path("results"),
) -> None:
    """Write the verdicts on finished claims as records, one small JSON file each."""
    from .._errors import InputError
    from ..evidence import judge_runs
    from ..evidence import record as write
    from ..papers import select

    written = 0
    for paper, claims in select(targets or []):
        for claim in claims:
            judged = judge_runs(paper, claim, scale, runs)
            if judged is None:
                print(f"{paper.slug}/{claim.name}: no finished run at scale {scale}")
            else:
                print(write(judged, results))
                written += 1
    if not written:
        raise InputError(f"nothing was recorded: {runs} holds no finished run of the claims asked for")


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="package.module:name or package.module:factory(...)")],
    law: Annotated[
        str, typer.Option(help="batch-independence, causality, invariance, equivariance or gradient-equivariance")
    ] = "batch-independence",
    action: Annotated[
        str | None, typer.Option(help="permutation, graph-permutation, rotation, translation, time-shift ...")
    ] = None,
    output_action: Annotated[str | None, typer.Option(help="action on the output, if it differs from --action")] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            help="shape of an argument, once for each: 8x100x3, 8x2..100x3, sets:4x10x8, graph:12x8 or ids:50:4x16"
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16")] = "float32",
    trials: Annotated[int, typer.Option(min=1, help="number of random inputs and group elements")] = 16,
    seed: Annotated[int, typer.Option(help="seed of the random inputs and group elements")] = 0,
    train: Annotated[bool, typer.Option("--train", help="run the module in training mode")] = False,
) -> None:
    """Check whether your own model obeys a law: exit 0 if it holds, 1 if it does not, 2 if it can't be checked."""
    from ._check import check_model

    raise typer.Exit(
        check_model(model, law, action, output_action, input or [], dtype, trials=trials, seed=seed, train=train)
    )


app.add_typer(weight_commands)


@app.command()
def data(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="data sets to load and check")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="local folder of data sets")] = None,
) -> None:
    """List data sets with their origin and whether they are available; with names, load them and fill the cache."""
    from ._data import fetch_data, show_data

    folder = None if data_dir is None else str(data_dir)
    if names:
        fetch_data(names, folder)
    else:
        show_data(folder)


@app.command()
def doctor() -> None:
    """Show versions, devices, extras and the data folder of this installation."""
    from ._show import show_doctor

    show_doctor()
