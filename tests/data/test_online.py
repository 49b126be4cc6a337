"""Public data sets loaded from local stand-ins for each online source."""

import gzip
import importlib.util
import shutil
import socket
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.data import _hub as hub
from commutant.data import _images as images
from commutant.data import _openml as openml
from commutant.data import _text as text
from commutant.data import (
    catalog,
    character_text,
    graphs_unavailable,
    image_classes,
    images_unavailable,
    load_graphs,
    load_table,
    mnist_glyphs,
    tables_unavailable,
    text_unavailable,
)

datasets = pytest.importorskip("datasets")
pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Keep the caches of all loaders in the folder of this test, and refuse connections."""
    for variable in ("COMMUTANT_DATA", "HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache" / "huggingface" / "datasets")

    def refuse(*_, **__):
        raise ConnectionError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "cache"


def write_hub(folder, columns, features=None):
    """Write a folder that `datasets.load_dataset` reads as it reads a repository of the hub."""
    for split, column in columns.items():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        part = datasets.Dataset.from_dict(column, features=features)
        part.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    return str(folder)


def pictures(count, shape, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), np.uint8), rng.permutation(np.arange(count) % 10).astype(np.uint8)


def image_hub(folder, name, column, shape):
    """Write a small copy of a set of images; return its parts and the repository."""
    parts = {"train": pictures(30, shape, 0), "test": pictures(20, shape, 1)}
    kinds = datasets.Features({column: datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    columns = {split: {column: list(x), "label": y.tolist()} for split, (x, y) in parts.items()}
    return parts, write_hub(folder / name, columns, kinds)


def small_copy(monkeypatch, name, parts, repository, images_of):
    """Replace the description of a public set by that of its small copy."""
    counts = {split: len(y) for split, (_, y) in parts.items()}
    known = replace(images.PUBLIC[name], repository=repository, counts=counts, digests={}, means={})
    if images.PUBLIC[name].digests:
        known = replace(known, digests={split: images.contents_digest(*parts[split]) for split in parts})
    else:
        known = replace(known, means={s: tuple(images_of(x).mean((0, 2, 3)) / 255) for s, (x, _) in parts.items()})
    monkeypatch.setitem(images.PUBLIC, name, known)


@pytest.mark.parametrize(
    ("name", "column", "shape"),
    [("mnist", "image", (28, 28)), ("fashion-mnist", "image", (28, 28)), ("cifar10", "img", (32, 32, 3))],
)
def test_images_of_the_hub(name, column, shape, tmp_path, monkeypatch):
    to_channels = (lambda x: x[:, None]) if len(shape) == 2 else (lambda x: x.transpose(0, 3, 1, 2))
    parts, repository = image_hub(tmp_path, name, column, shape)
    small_copy(monkeypatch, name, parts, repository, to_channels)
    data = image_classes(name)
    for found, (x, y) in zip((data.train, data.test), parts.values(), strict=True):
        assert torch.equal(found[0], torch.from_numpy(to_channels(x).copy()).float() / 255)
        assert found[1].tolist() == y.tolist()
    other, repository = image_hub(tmp_path / "other", name, column, shape)
    other["train"][0][3] = 7
    write_hub(tmp_path / "changed", {s: {column: list(x), "label": y.tolist()} for s, (x, y) in other.items()},
              datasets.Features({column: datasets.Image(), "label": datasets.ClassLabel(num_classes=10)}))  # fmt: skip
    monkeypatch.setitem(images.PUBLIC, name, replace(images.PUBLIC[name], repository=str(tmp_path / "changed")))
    with pytest.raises(InputError, match="does not hold the published train images"):
        image_classes(name)
    monkeypatch.setitem(images.PUBLIC, name, replace(images.PUBLIC[name], counts={"train": 31, "test": 20}))
    with pytest.raises(InputError, match=r"train images \(30, .* expected \(31, "):
        image_classes(name)


def test_a_cached_copy_is_read_without_the_hub(caches, tmp_path, monkeypatch):
    parts, repository = image_hub(tmp_path, "mnist", "image", (28, 28))
    small_copy(monkeypatch, "mnist", parts, "ylecun/mnist", None)
    assert "commutant data mnist" in images_unavailable("mnist", None)
    prepared = datasets.load_dataset(repository)
    source = min((tmp_path / "cache").rglob("dataset_info.json")).parent
    shutil.copytree(source, caches / "huggingface" / "datasets" / "ylecun___mnist" / "mnist" / "0.0.0" / "abc")
    assert len(prepared["train"]) == 30
    monkeypatch.setattr(datasets, "load_dataset", None)
    assert images_unavailable("mnist", None) is None
    assert [data.state for data in catalog() if data.name == "mnist"] == ["cache"]
    assert image_classes("mnist").test[1].tolist() == parts["test"][1].tolist()
    assert torch.equal(mnist_glyphs("test").images, torch.from_numpy(parts["test"][0]).float() / 255)


def test_a_data_folder_comes_first(tmp_path, monkeypatch):
    parts = {"train": pictures(50, (3, 32, 32), 0), "test": pictures(10, (3, 32, 32), 1)}
    small_copy(monkeypatch, "cifar10", parts, "uoft-cs/cifar10", lambda x: x)
    monkeypatch.setattr(datasets, "load_dataset", None)
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    for split, (x, y) in parts.items():
        rows = np.concatenate([y[:, None], x.reshape(len(x), -1)], 1)
        files = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
        for file, batch in zip(files, np.split(rows, len(files)), strict=True):
            (folder / file).write_bytes(batch.tobytes())
    data = image_classes("cifar10", str(tmp_path / "data"))
    assert torch.equal(data.train[0], torch.from_numpy(parts["train"][0]).float() / 255)
    assert data.test[1].tolist() == parts["test"][1].tolist()
    (folder / "data_batch_3.bin").write_bytes(b"short")
    with pytest.raises(InputError, match=r"data_batch_3.bin holds 5 bytes"):
        image_classes("cifar10", str(tmp_path / "data"))
    (folder / "data_batch_3.bin").unlink()
    assert "with cifar10/data_batch_3.bin" in images_unavailable("cifar10", str(tmp_path / "data"))


def test_tiny_shakespeare_of_the_hub(tmp_path, monkeypatch):
    lines = {"train": "abcd" * 223_000, "validation": "abcd" * 27_000, "test": "abcd" * 28_848 + "ab"}
    repository = write_hub(tmp_path / "shakespeare", {split: {"text": [line]} for split, line in lines.items()})
    monkeypatch.setattr(text, "_REPOSITORY", repository)
    with pytest.raises(InputError, match="not hold the text of Tiny Shakespeare"):
        character_text("tinyshakespeare")
    monkeypatch.setattr(text, "_DIGEST", text.hashlib.sha256("".join(lines.values()).encode()).hexdigest())
    found = character_text("tinyshakespeare")
    assert len(found.train) + len(found.valid) == 1_115_394
    assert found.source == "Tiny Shakespeare"


def test_tables_of_openml(caches, monkeypatch):
    sklearn = pytest.importorskip("sklearn.datasets")
    asked = []

    def fetch(name, *, version, data_home, **_):
        asked.append((name, version))
        file = openml.Path(data_home) / "openml" / "openml.org" / "data" / "v1" / "download" / "7.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(b""))
        target = np.array(["Kama", "Rosa", "Canadian"] * 70)
        return SimpleNamespace(data=np.arange(210 * 7.0).reshape(210, 7), target=target)

    monkeypatch.setattr(sklearn, "fetch_openml", fetch)
    assert "commutant data seeds" in tables_unavailable(("iris", "seeds"), None)
    table = load_table("seeds")
    assert asked == [("seeds", 1)]
    assert table.x.shape == (210, 7)
    assert table.y[:3].tolist() == [1, 2, 0]
    assert table.source == "UCI seeds (OpenML seeds)"
    assert tables_unavailable(("seeds",), None) is None
    with pytest.raises(InputError, match=r"expected \(195, 22\) finite features"):
        load_table("parkinsons")


def test_graphs_through_pyg(caches, monkeypatch):
    pytest.importorskip("torch_geometric")
    folder = caches / "commutant" / "MUTAG" / "raw"
    folder.mkdir(parents=True)
    nodes = range(1, 2 * 188 + 1)
    for part, rows in {
        "A": [f"{i}, {i + 1}" for i in nodes[::2]] + [f"{i + 1}, {i}" for i in nodes[::2]],
        "graph_indicator": [(i + 1) // 2 for i in nodes],
        "graph_labels": [1 if i < 125 else -1 for i in range(188)],
        "node_labels": [i % 3 for i in nodes],
    }.items():
        (folder / f"MUTAG_{part}.txt").write_text("\n".join(map(str, rows)) + "\n")
    assert "commutant data MUTAG" in graphs_unavailable("MUTAG", None)
    data = load_graphs("MUTAG")
    assert [graph.num_nodes for graph in data.graphs] == [2] * 188
    assert sorted(torch.cat(data.folds).tolist()) == list(range(188))
    assert data.classes == 2
    assert graphs_unavailable("MUTAG", None) is None
    monkeypatch.setattr("torch_geometric.datasets.TUDataset.download", lambda _: 1 / 0)
    with pytest.raises(InputError, match="PTC could not be loaded from TU collection PTC_MR"):
        load_graphs("PTC")


def test_what_is_neither_here_nor_online_is_told_in_one_sentence(monkeypatch):
    def offline(_):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(InputError, match=r"mnist could not be loaded from Hugging Face ylecun/mnist \(ConnectionError"):
        image_classes("mnist")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for call in (lambda: image_classes("mnist"), lambda: character_text("tinyshakespeare")):
        with pytest.raises(InputError, match=r"pip install 'commutant\[hf\]'.*COMMUTANT_DATA\) with (mnist|text)/t"):
            call()
    with pytest.raises(InputError, match=r"commutant\[graphs\].*tu-gin/MUTAG.zip"):
        load_graphs("MUTAG")
    assert "needs extra hf" in {data.state for data in catalog()}


def test_availability_asks_no_network_and_starts_no_loader(monkeypatch):
    monkeypatch.setattr(hub, "require", None)
    monkeypatch.setattr(datasets, "load_dataset", None)
    assert text_unavailable("tinyshakespeare", None)
    assert {data.state for data in catalog()} >= {"embedded", "online (hf)", "online (graphs)", "not here"}


def test_every_embedded_data_set_loads_without_a_connection():
    for data in catalog():
        if data.state == "embedded":
            assert data.load() is not None
