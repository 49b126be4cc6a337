"""Tables of README and docs, written from `results/` and from the code; `--check` only compares.

python -m tools.tables [--check]
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import house

if TYPE_CHECKING:
    from commutant.evidence import Judged

ROOT = house.ROOT
_FORMULAS: dict[str, str] = {}
AGGREGATIONS = {
    "gru": "`GRUFoldAggregation`",
    "binary-gru": "`LCMAggregation`",
    "binary-gru-random": "`LCMAggregation`, random bracketing",
    "binary-gru-assoc": "`LCMAggregation`, associativity loss",
    "pna": "PNA (mean, sd, max, min, scaled)",
    "max": "`Max`",
    "sum": "`Sum`",
}


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", " ")


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@functools.cache
def records() -> list[Judged]:
    """Return all recorded verdicts, by paper and claim."""
    from commutant.evidence import read_records
    from commutant.papers import papers

    return read_records(ROOT / "results", papers())


def recorded(slug: str, claim: str) -> Judged | None:
    """Return the verdict recorded for a claim at the small scale."""
    own = (r for r in records() if (r.paper.slug, r.claim.name, r.scale) == (slug, claim, "small"))
    return next(own, None)


def benchmarks() -> list[dict[str, Any]]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted((ROOT / "results" / "benchmarks").glob("*.json"))]


def claims_table(slug: str) -> str:
    """Return the claims of a paper with their verdicts; next to each the effect, the bar and the paper's figure."""
    from commutant.evidence import comparison, effect_in_words, seeds_in_words

    rows, made = [], set()
    for r in (r for r in records() if r.paper.slug == slug):
        shown = effect_in_words(r)
        mark = f'<span class="verdict {r.verdict.outcome.replace(" ", "-")}">{r.verdict.word}</span>'
        small = [line for line in (comparison(r), f"`{r.claim.name}` · {r.claim.effect_label}") if line]
        claim = "<br>".join([mark, r.claim.statement, *(f"<small>{line}</small>" for line in small)])
        interval = shown.interval if r.verdict.effect.basis == "identity" else f"95 %: {shown.interval}"
        paper = [f"paper: {shown.paper}"] if shown.paper else []
        lines = "<br>".join([interval, f"bar: {shown.bar}", *paper, seeds_in_words(r)])
        rows.append([claim.replace("|", "\\|"), f'**{shown.mean}**<br><small class="interval">{lines}</small>'])
        versions = r.made["versions"]
        made.add(f"{r.scale} scale, {r.made['hardware']}, torch {versions['torch']}, {r.made['date']}")
    return f"{table(['claim', 'effect'], rows)}\n\n<small>{'; '.join(sorted(made))}</small>"


def paper_page(paper: Any) -> str:
    """The page of a paper: what it says, what implements it, and what was found."""
    subjects = ", ".join(f"`{subject.__qualname__}`" for subject in paper.subjects)
    return f"""# {paper.title}

{paper.authors}. {paper.venue}, {paper.year}. [{paper.link}]({paper.link})

{paper.idea}

## In this library

{subjects}: see the [reference of `commutant.{paper.room}`](../reference/{paper.room}.md).

```python
{re.sub(" {3,}# ", "  # ", paper.usage).rstrip()}
```

## Claims

```bash
commutant reproduce {paper.slug}
```

{claims_table(paper.slug)}

[What was found](../claims.md) explains how a verdict is computed.
"""


def verdicts(slug: str) -> str:
    """Return how many claims of a paper got each verdict at the small scale, in words."""
    from commutant.evidence import counted

    own = (r.verdict.outcome for r in records() if (r.paper.slug, r.scale) == (slug, "small"))
    return ", ".join(counted(own).values())


def overview() -> str:
    """All papers, each with the verdicts of its claims."""
    from commutant.papers import papers

    rows = [[f"[{p.title}](papers/{p.slug}.md) ({p.year})", verdicts(p.slug)] for p in papers()]
    return table(["paper", "claims, small scale"], rows)


def systems_table() -> str:
    from commutant.papers import papers

    rows = []
    for paper in papers():
        title = f"[{paper.title}]({paper.link}) ({paper.year})"
        rows.append([f"`{paper.slug}`", title, f"`commutant.{paper.room}`", verdicts(paper.slug)])
    return table(["system", "paper", "room", "claims, small scale"], rows)


def made_of(found: Judged) -> str:
    """Return with how many seeds, where and when a record was made."""
    return f"{len(found.seeds)} seeds, {found.made['hardware']}, {found.made['date']}."


def choose_table() -> str:
    found = recorded("lcm", "second-minimum")
    if found is None:
        return ""
    figures = found.figures
    sizes = ("train", "32", "64", "100", "200")
    rows = [[label, *(f"{figures[f'{arm}@{n}']['mean']:.2f}" for n in sizes)] for arm, label in AGGREGATIONS.items()]
    rows.append(["best constant answer", "–", *(f"{figures[f'constant@{n}']['mean']:.2f}" for n in sizes[1:])])
    head = ["aggregation", "in distribution", *(f"n = {n}" for n in sizes[1:])]
    return f"{table(head, rows)}\n\n{made_of(found)}"


def four_cycles_table() -> str:
    """Return the accuracy of the networks that look for 4-cycles."""
    found = recorded("spen", "four-cycles")
    if found is None:
        return ""
    from commutant.papers.spen.figures import FOUR_CYCLES

    rows = [[name, f"{found.figures[arm]['mean']:.3f}"] for arm, (name, _) in FOUR_CYCLES.items()]
    return f"{table(['network', 'test accuracy'], rows)}\n\n{made_of(found)}"


def collection_table() -> str:
    """Return the test accuracy on the TU data sets, mean over the folds and over the seeds."""
    parts = [recorded("spen", name) for name in ("mutag", "collection")]
    means = {key: value for found in parts if found is not None for key, value in found.figures.items()}
    names = [key.removeprefix("spen@") for key in means if key.startswith("spen@") and key.count("@") == 1]
    arms = {"SPEN": "spen", "GIN": "gin", "GNN-AK": "gnn-ak", "majority class": "majority"}
    rows = [[name, *(f"{means[f'{arm}@{name}']['mean']:.3f}" for arm in arms.values())] for name in names]
    return table(["data set", *arms], rows)


def subsets_table() -> str:
    """Return the overlap of utilities, taggers and selectors on sets with anomalies."""
    found = recorded("subset-selection", "background")
    if found is None:
        return ""
    from commutant.papers.subset_selection.figures import ANOMALIES

    rows = [
        [name, *(f"{found.figures[key]['mean']:.3f}" for key in (arm, f"{arm}-unsized"))]
        for arm, (name, _) in ANOMALIES.items()
    ]
    head = ["sets of 8 noisy digits, 2 or 3 anomalies", "Jaccard, true size", "size predicted"]
    return f"{table(head, rows)}\n\n{made_of(found)}"


def benchmark_table(b: dict[str, Any]) -> str:
    head = ["", *b["columns"]]
    rows = [
        [row["name"], *(str(row[c]) if isinstance(row[c], str) else number(row[c]) for c in b["columns"])]
        for row in b["rows"]
    ]
    made = f"{b['hardware']}, {b['threads']} threads, torch {b['versions']['torch']}, {b['date']}."
    return f"## {b['title']}\n\n{b['description']}\n\n{table(head, rows)}\n\n{b['reading']}\n\n{made}"


def benchmark_part(name: str) -> str:
    """Return the bare table of a recorded benchmark."""
    found = next((b for b in benchmarks() if b["name"] == name), None)
    return "" if found is None else "\n\n".join(benchmark_table(found).split("\n\n")[2:3])


def formula_of(law: Any) -> str:
    """Return the identity of a stated law; some cases take long to make."""
    if law.id not in _FORMULAS:
        import torch

        from commutant.laws import Draw

        _FORMULAS[law.id] = law.case(Draw(torch.Generator().manual_seed(0), 3, 4))[0].formula
    return _FORMULAS[law.id]


def laws_table() -> str:
    from commutant.laws import stated_laws

    for room in house.rooms():
        importlib.import_module(f"commutant.{room}")
    rows = []
    for law in stated_laws():
        formula = formula_of(law)
        state = "obeys" if law.holds else "must break"
        rows.append([f"`{law.subject.__qualname__}`", state, law.title, formula.replace("|", "\\|")])
    return table(["subject", "", "law", "identity"], sorted(rows))


def exactness_table() -> str:
    """Return jumps near a cube and torques of forces, from the record of the claim on continuity."""
    found = recorded("frame-averaging", "continuity")
    if found is None:
        return "Not measured yet."
    figures = {key: value["mean"] for key, value in found.figures.items()}
    ways = (("axes", "principal axes, as they come"), ("blended", "`pca_frame`"), ("weighted", "`weighted_frame`"))
    header = ["frame", *(f"1e-{p} from a cube" for p in (1, 2, 3, 4, 5)), "the cube itself, turned"]
    rows = [
        [label, *(number(figures[f"{way}@jump-{p}"]) for p in (1, 2, 3, 4, 5)), number(figures[f"{way}@cube"])]
        for way, label in ways
    ]
    forces = [
        [label, number(figures[f"{way}@torque"]), number(figures[f"{way}@force"]), error]
        for way, label, error in (
            ("through", 'through the frame (`gradient="through"`)', "exact"),
            ("detached", 'frame detached (`gradient="detach"`)', f"{100 * figures['detached@error']:.1f} % off"),
        )
    ]
    first = table(header, rows)
    return first + "\n\n" + table(["gradient of an invariant energy", "torque", "sum of forces", "force"], forces)


def public_names(room: str) -> list[str]:
    module = importlib.import_module(f"commutant.{room}")
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name != "annotations"
        and getattr(value, "__module__", module.__name__).startswith(f"commutant.{room}")
        and type(value).__name__ != "module"
    )


def stated(subject: Any) -> str:
    """Return the laws that a class states, for its entry in the reference."""
    from commutant.laws import stated_laws

    parts = []
    for law in stated_laws(subject) if callable(subject) else []:
        parts.append(f"{'obeys' if law.holds else 'must break'} {law.title}, `{formula_of(law)}`")
    return f"\n\n**Laws:** {'; '.join(sorted(parts))}." if parts else ""


def is_record(subject: Any) -> bool:
    """Return whether a class only holds named values, as the results of functions do."""
    plain = subject.__bases__ == (object,) and dataclasses.is_dataclass(subject)
    named = issubclass(subject, tuple) and hasattr(subject, "_fields")
    methods = [v for k, v in vars(subject).items() if k[0] != "_" and inspect.isfunction(v)]
    return (plain or named) and not any(len(inspect.signature(method).parameters) > 1 for method in methods)


def reference(room: str) -> str:
    """The reference of a module: what users come for first, records and constants last."""
    module = importlib.import_module(f"commutant.{room}")
    sections: dict[str, list[str]] = {"Classes": [], "Functions": [], "Records": [], "Constants": []}
    for name in public_names(room):
        subject = getattr(module, name)
        kind = "Constants"
        if inspect.isclass(subject):
            kind = "Records" if is_record(subject) else "Classes"
        elif callable(subject):
            kind = "Functions"
        sections[kind].append(f"::: commutant.{room}.{name}{stated(subject)}")
    parts = [f"# commutant.{room}", (module.__doc__ or "").strip()]
    for title, entries in sections.items():
        parts += [f"## {title}", *entries] if entries else []
    return "\n\n".join(parts) + "\n"


def fill(text: str, name: str, content: str) -> str:
    pattern = re.compile(rf"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)", re.S)
    if not pattern.search(text):
        raise SystemExit(f"no markers for {name}")
    return pattern.sub(lambda m: f"{m[1]}{content}\n{m[2]}", text)


def pages() -> dict[Path, str]:
    """Return every generated page with the text that it should contain."""
    from commutant.papers import papers

    filled = {
        "README.md": {"systems": systems_table()},
        "docs/claims.md": {"claims": overview()},
        "docs/choose.md": {"choose": choose_table(), "choose-time": benchmark_part("many-sets")},
        "docs/sets.md": {"subsets": subsets_table(), "set-classifiers": benchmark_part("set-classifiers")},
        "docs/graphs.md": {
            "four-cycles": four_cycles_table(),
            "collection": collection_table(),
            "blocks": benchmark_part("equivariant-blocks"),
        },
        "docs/laws.md": {"laws": laws_table()},
        "docs/geometry.md": {"exactness": exactness_table()},
        "docs/benchmarks.md": {"benchmarks": "\n\n".join(benchmark_table(b) for b in benchmarks())},
    }
    out = {}
    for name, parts in filled.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for part, content in parts.items():
            text = fill(text, part, content)
        out[ROOT / name] = text
    out |= {ROOT / f"docs/papers/{p.slug}.md": paper_page(p) for p in papers()}
    return out | {ROOT / f"docs/reference/{room}.md": reference(room) for room in house.documented()}


def main() -> int:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} differs from what results/ and the code say; run: make tables")
        return int(bool(stale))
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{len(stale)} pages written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
