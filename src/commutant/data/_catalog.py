"""List of the data sets that `commutant data` prints and loads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from ._expressivity import FAMILIES, family_source, hard_graphs
from ._graphs import GRAPHS, graph_source, load_graphs
from ._images import PUBLIC, image_classes, image_source
from ._molecules import IN_FILES, load_molecules, molecule_source, molecules_unavailable
from ._openml import OPENML, table_source
from ._sources import IN_FOLDER, Source
from ._tables import BUNDLED, GENERATED, load_table, stored_tables
from ._text import SHAKESPEARE, character_text
from ._time_series import TIME_SERIES, load_time_series, time_series_source
from ._tsplib import load_tsplib, tsplib_source

EMBEDDED = "embedded"


class DataSet(NamedTuple):
    """Data set that this library can load, and its availability."""

    kind: str
    """Kind of the data: `"images"`, `"tables"`, `"text"`, `"graphs"`, `"molecules"` or `"series"`."""
    name: str
    """Name, as for the function that loads it."""
    state: str
    """One of `"embedded"`, `"data folder"`, `"cache"`, `"online (EXTRA)"`, `"needs extra EXTRA"` and `"not here"`."""
    origin: str
    """Package, online source or folder that provides it."""
    load: Callable[[], Any]
    """Function that loads it, after a download if it is only online."""


def catalog(data_dir: str | None = None) -> list[DataSet]:
    """Return all data sets from files, packages and online sources, without network access.

    Args:
        data_dir: Data folder; by default `$COMMUTANT_DATA`.

    Example:
        >>> [data.state for data in catalog() if data.name == "iris"]
        ['embedded']
    """

    def public(
        kind: str, names: Iterable[str], source: Callable[[str], Source], load: Callable[..., Any]
    ) -> list[DataSet]:
        found = []
        for name in names:
            known = source(name)
            state = known.state(data_dir)
            in_folder = state == IN_FOLDER or known.package is None
            origin = f"DATA_DIR/{known.files[0].rpartition('/')[0]}" if in_folder else known.origin
            found.append(DataSet(kind, name, state, origin, partial(load, name, data_dir)))
        return found

    digits = DataSet("images", "digits", EMBEDDED, "scikit-learn", image_classes)
    tables = [DataSet("tables", name, EMBEDDED, "scikit-learn", partial(load_table, name)) for name in BUNDLED]
    tables += [DataSet("tables", name, EMBEDDED, "generated", partial(load_table, name)) for name in GENERATED]
    known = {table.name for table in tables}
    study = sorted({*OPENML, *stored_tables(data_dir)} - known)
    python = DataSet("text", "python", EMBEDDED, "standard library", character_text)
    ase = EMBEDDED if molecules_unavailable("g2", None) is None else "needs extra molecules"
    return [
        digits,
        *public("images", (*PUBLIC, "cifar10-6k"), image_source, image_classes),
        *tables,
        *public("tables", study, table_source, load_table),
        python,
        *public("text", ["tinyshakespeare"], lambda _: SHAKESPEARE, character_text),
        *public("graphs", GRAPHS, graph_source, load_graphs),
        *public("graphs", FAMILIES, family_source, hard_graphs),
        DataSet("molecules", "g2", ase, "ASE", partial(load_molecules, "g2")),
        *public("molecules", IN_FILES, molecule_source, load_molecules),
        *public("series", TIME_SERIES, time_series_source, load_time_series),
        *public("tours", ["TSPLIB"], lambda _: tsplib_source(), lambda _, folder=None: load_tsplib(folder)),
    ]
