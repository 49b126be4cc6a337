"""Checkpoints in safetensors files, whole or in shards, as mappings that read each tensor on access."""

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
_PARTIAL = ".partial"
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".npz", ".h5", ".onnx", ".gguf", ".json", ".txt")


class Checkpoint(Mapping[str, Tensor]):
    """Mapping from names to the tensors of a safetensors checkpoint, each read from disk on access.

    Args:
        path: A `.safetensors` file, a `.safetensors.index.json` file, or a folder that holds one of them.

    Raises:
        InputError: The path does not exist, is a pickle (the message says how to convert it), or is damaged.
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
                    if key in self._where:
                        raise InputError(
                            f"{path} holds {key!r} twice, in {self._where[key].name} and {file.name}; delete the copy "
                            "that is out of date"
                        )
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
        """Return the path to which `rewrite` would write each file of this checkpoint, including the index.

        A target that does not exist is treated as a folder unless it ends in the extension of a weight file, so
        `net-3.1` is a folder.

        Args:
            target: A `.safetensors` file, or a folder.

        Raises:
            InputError: The target is a file although the checkpoint has shards, is not a `.safetensors` file, or can't
                be reached.
        """
        target = Path(target)
        try:
            folder = target.is_dir() or not (target.suffix in _ENDINGS or target.exists())
            if self.index is None and not folder:
                if target.suffix != ".safetensors":
                    raise InputError(f"{target} must be a folder, or end in .safetensors")
                places = {self.files[0]: target}
            elif self.index is None:
                places = {self.files[0]: target / self.files[0].name}
            elif target.suffix == ".safetensors" or not folder:
                raise InputError(f"{self.path} has shards: the output must be a folder, got {target}")
            else:
                places = {file: target / file.relative_to(self.index.parent) for file in (*self.files, self.index)}
            for place in places.values():
                place.with_name(place.name + _PARTIAL).exists()  # names that are too long fail here
        except OSError as error:
            raise InputError(f"{target} can't be written: {error.strerror}") from None
        return places

    def rewrite(
        self,
        target: str | Path,
        change: Callable[[str, Tensor], Tensor],
        *,
        copies: Mapping[Path, Path] | None = None,
    ) -> list[Path]:
        """Write a checkpoint of the same layout with every tensor changed, one shard in memory at a time.

        All files are first written under temporary names and renamed together at the end, so that a failure leaves the
        old files intact. Missing folders are created. Sizes stored in an index of shards are updated.

        Args:
            target: A `.safetensors` file, or a folder.
            change: Function from the name and the tensor of an entry to the tensor to write.
            copies: Further files to copy, such as a configuration, with the path of each copy.

        Returns:
            The files written.

        Raises:
            InputError: The output can't be written.
        """
        places = self.places(target)
        copies = dict(copies or {})
        partial = {place: place.with_name(place.name + _PARTIAL) for place in (*places.values(), *copies.values())}
        made: list[Path] = []
        size = count = 0
        try:
            for place in partial:
                made += [p for p in (place.parent, *place.parent.parents) if not p.exists() and p not in made]
                place.parent.mkdir(parents=True, exist_ok=True)
            for file in self.files:
                with _opened(file) as handle:
                    metadata, keys = handle.metadata() or {"format": "pt"}, list(handle.keys())
                    tensors = {key: change(key, handle.get_tensor(key)).contiguous() for key in keys}
                size += sum(value.numel() * value.element_size() for value in tensors.values())
                count += sum(value.numel() for value in tensors.values())
                save_file(tensors, str(partial[places[file]]), metadata)
            if self.index is not None:
                text = _with_sizes(
                    self.index.read_text(encoding="utf-8"), {"total_size": size, "total_parameters": count}
                )
                partial[places[self.index]].write_text(text, encoding="utf-8")
            for file, place in copies.items():
                partial[place].write_bytes(file.read_bytes())
            for place, written in partial.items():
                written.replace(place)
            made.clear()
        except (OSError, SafetensorError) as error:
            raise InputError(f"{target} can't be written: {error}") from None
        finally:
            for written in partial.values():
                with contextlib.suppress(OSError):
                    written.unlink()
            for folder in sorted(made, key=lambda p: len(p.parts), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return list(partial)


def _with_sizes(index: str, sizes: Mapping[str, int]) -> str:
    """Return the text of an index of shards with the sizes that it states replaced."""
    content = json.loads(index)
    stated = content.get("metadata")
    if isinstance(stated, dict):
        stated |= {name: size for name, size in sizes.items() if name in stated}
    return json.dumps(content, indent=2) + "\n"


def _files(path: Path) -> tuple[list[Path], Path | None]:
    """Return the files of a checkpoint, and the index that names them if there are shards."""
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
            names = sorted(
                {Path(str(name)) for name in json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()}
            )
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError(f"{path} is not an index of safetensors shards") from None
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
            f"{path} is a pickle, which can run code when it is loaded; if you trust it, convert it: "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')"
        )
    return [path], None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[safe_open]:
    try:
        with safe_open(str(file), framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} can't be read: {error}; it may be truncated or not a safetensors file") from None
