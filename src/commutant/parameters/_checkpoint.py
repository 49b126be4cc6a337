"""Checkpoints as mappings that read a tensor when it is asked for: safetensors files, whole or in shards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .._errors import InputError
from ._given import kind_of

_INDEX = "model.safetensors.index.json"


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a safetensors file, of a folder of shards or of their index; only what is read is in memory.

    Args:
        path: a `.safetensors` file, a `.safetensors.index.json`, or a folder that holds one of them.

    Raises:
        InputError: nothing there, a pickle, or a damaged file; says how to convert.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | Path):
            raise InputError(f"path must be a file or a folder, got {kind_of(path)}")
        self.path = Path(path)
        try:
            self.files, self.index = _files(self.path)
        except OSError as error:
            raise InputError(f"{path} can't be read: {error}") from None
        self._where: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        for file in self.files:
            with _opened(file) as handle:
                for key in handle.keys():  # noqa: SIM118  (not a mapping)
                    self._where[key] = file
                    entry = handle.get_slice(key)
                    self.shapes[key], self.dtypes[key] = tuple(entry.get_shape()), str(entry.get_dtype())

    def __getitem__(self, key: str) -> Tensor:
        with _opened(self._where[key]) as handle:
            return handle.get_tensor(key)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def places(self, target: str | Path) -> dict[Path, Path]:
        """Where `rewrite` would write each file of this checkpoint, the index of shards included.

        Raises:
            InputError: a file for a sharded checkpoint, or a folder's name for a single file.
        """
        target = Path(target)
        if self.index is None:
            if target.is_dir():
                return {self.files[0]: target / self.files[0].name}
            if target.suffix != ".safetensors":
                raise InputError(f"{target} must be a folder that is there, or end in .safetensors")
            return {self.files[0]: target}
        if target.suffix == ".safetensors" or target.is_file():
            raise InputError(f"{self.path} has shards: the output must be a folder, got {target}")
        return {file: target / file.relative_to(self.index.parent) for file in (*self.files, self.index)}

    def rewrite(self, target: str | Path, change: Callable[[str, Tensor], Tensor]) -> list[Path]:
        """Write a checkpoint of the same layout with every tensor changed, one shard in memory at a time.

        All files are written beside their places first and renamed together at the end, so that a failure leaves what
        was there.

        Returns:
            The files written.

        Raises:
            InputError: the output can't be written.
        """
        places = self.places(target)
        partial = {place: place.with_name(place.name + ".partial") for place in places.values()}
        try:
            for file, place in places.items():
                place.parent.mkdir(parents=True, exist_ok=True)
                if file == self.index:
                    partial[place].write_text(file.read_text())
                    continue
                with _opened(file) as handle:
                    metadata, keys = handle.metadata(), list(handle.keys())
                    tensors = {key: change(key, handle.get_tensor(key)).contiguous() for key in keys}
                save_file(tensors, str(partial[place]), metadata)
            for place, written in partial.items():
                written.replace(place)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{target} can't be written: {error}") from None
        finally:
            for written in partial.values():
                with contextlib.suppress(OSError):
                    written.unlink()
        return list(partial)


def _files(path: Path) -> tuple[list[Path], Path | None]:
    """The files of a checkpoint, and the index that names them where there are shards."""
    if path.is_dir():
        if (path / _INDEX).is_file():
            path = path / _INDEX
        elif (path / "model.safetensors").is_file():
            path = path / "model.safetensors"
        else:
            raise InputError(f"{path} holds neither model.safetensors nor {_INDEX}")
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.suffix == ".json":
        try:
            names = sorted({Path(str(name)) for name in json.loads(path.read_text())["weight_map"].values()})
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError(f"{path} is no index of safetensors shards") from None
        if odd := [name for name in names if name.is_absolute() or ".." in name.parts]:
            raise InputError(f"{path} names the shard {odd[0]}, which lies outside its folder")
        files = [path.parent / name for name in names]
        if missing := [f for f in files if not f.is_file()]:
            raise InputError(f"{path} names the shard {missing[0].relative_to(path.parent)}, which is not there")
        return files, path
    with path.open("rb") as stream:
        head = stream.read(8)
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl") or head[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise InputError(
            f"{path} is a pickle, which can run code when it is read; convert it where you trust it: "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')"
        )
    return [path], None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[safe_open]:
    try:
        with safe_open(str(file), framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} can't be read: {error}; it may be cut short or no safetensors file") from None
