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

_INDEX = "model.safetensors.index.json"


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a safetensors file, of a folder of shards or of their index; only what is read is in memory.

    Args:
        path: a `.safetensors` file, a `.safetensors.index.json`, or a folder that holds one of them.

    Raises:
        InputError: nothing there, a pickle, or a damaged file; says how to convert.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files = _files(self.path)
        self._where: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            with _opened(file) as handle:
                for key in handle.keys():  # noqa: SIM118  (not a mapping)
                    self._where[key] = file
                    self.shapes[key] = tuple(handle.get_slice(key).get_shape())

    def __getitem__(self, key: str) -> Tensor:
        with _opened(self._where[key]) as handle:
            return handle.get_tensor(key)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def rewrite(self, target: str | Path, change: Callable[[str, Tensor], Tensor]) -> list[Path]:
        """Write a checkpoint of the same layout with every tensor changed, one shard in memory at a time.

        Each file is written beside its place and then renamed, so that a stop leaves no half a file.

        Returns:
            The files written.
        """
        target = Path(target)
        single = len(self.files) == 1 and target.suffix == ".safetensors"
        folder = target.parent if single else target
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for file in self.files:
            with _opened(file) as handle:
                metadata = handle.metadata()
                keys = list(handle.keys())
                tensors = {key: change(key, handle.get_tensor(key)).contiguous() for key in keys}
            place = target if single else folder / file.name
            partial = place.with_name(place.name + ".partial")
            save_file(tensors, str(partial), metadata)
            partial.replace(place)
            written.append(place)
        index = self.path if self.path.suffix == ".json" else self.path / _INDEX
        if not single and index.is_file():
            (folder / index.name).write_text(index.read_text())
        return written


def _files(path: Path) -> list[Path]:
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
            names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError(f"{path} is no index of safetensors shards") from None
        files = [path.parent / name for name in names]
        if missing := [f for f in files if not f.is_file()]:
            raise InputError(f"{path} names the shard {missing[0].name}, which is not there")
        return files
    with path.open("rb") as stream:
        head = stream.read(8)
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl") or head[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise InputError(
            f"{path} is a pickle, which can run code when it is read; convert it where you trust it: "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')"
        )
    return [path]


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[safe_open]:
    try:
        with safe_open(str(file), framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} can't be read: {error}; it may be cut short or no safetensors file") from None
