"""`commutant symmetries | align | merge | barrier | shrink` on checkpoints that the test trains, in real processes."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from commutant.weights import resize
from warm import commutant

MODELS = """
import torch
from torch import nn

def mlp(width=64):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))

def normed():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

def tied():
    net = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 9, bias=False))
    net[4].weight = net[0].weight
    return net

class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.head = nn.Linear(4, 8), nn.Linear(8, 2)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(5))

    def forward(self, x):
        h = self.into(x).relu()
        chosen, out = (x.abs().sum(1) * 3).long() % 5, h
        for number, expert in enumerate(self.experts):
            if bool((chosen == number).any()):
                out = out + (chosen == number)[:, None] * expert(h)
        return self.head(out)

def ends(model):
    raise SystemExit(0)

def meta(model):
    return torch.zeros((), device="meta")

def nothing(model):
    pass

def tensor(model):
    return model[0].weight.square().mean()

def loss(model):
    from sklearn.datasets import load_digits
    x, y = load_digits(return_X_y=True)
    with torch.no_grad():
        return nn.functional.cross_entropy(model(torch.tensor(x / 16, dtype=torch.float32)), torch.tensor(y))

number = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    datasets = pytest.importorskip("sklearn.datasets")
    folder = tmp_path_factory.mktemp("weights")
    (folder / "nets.py").write_text(MODELS)
    x, y = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(15):
            for batch in torch.randperm(len(x)).split(128):
                optimizer.zero_grad()
                F.cross_entropy(net(x[batch]), y[batch]).backward()
                optimizer.step()
        save_file(net.state_dict(), str(folder / f"{name}.safetensors"), {"format": "pt"})
    return folder


NET = ("--model", "nets:mlp()", "--input", "4x64")


def refused(message, *arguments, cwd):
    done = commutant(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_align_then_barrier(folder):
    done = commutant("align", "a.safetensors", "b.safetensors", *NET, "-o", "b2.safetensors", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "distance of the weights" in done.stdout
    before, after = load_file(folder / "b.safetensors"), load_file(folder / "b2.safetensors")
    assert before.keys() == after.keys()
    x = torch.randn(5, 64)
    nets = [nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)) for _ in "ab"]
    for net, state in zip(nets, (before, after), strict=True):
        net.load_state_dict(state)
    torch.testing.assert_close(nets[0](x), nets[1](x))
    assert not torch.equal(before["0.weight"], after["0.weight"])
    found = []
    for second in ("b", "b2"):
        done = commutant("barrier", "a.safetensors", f"{second}.safetensors", "--model", "nets:mlp()", "--evaluate",
                         "nets:loss", "--points", 5, cwd=folder)  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(float(done.stdout.split("barrier ")[1].split(",")[0]))
    assert found[1] < found[0] / 3


def test_merge_two_and_three(folder):
    for names in (("a", "b"), ("a", "b", "c")):
        files = [f"{n}.safetensors" for n in names]
        out = f"merged{len(names)}.safetensors"
        done = commutant("merge", *files, *NET, "-o", out, cwd=folder)
        assert done.returncode == 0, done.stderr
        merged = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        merged.load_state_dict(load_file(folder / out))
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = torch.tensor(x / 16, dtype=torch.float32)
        assert float((merged(x).argmax(1) == torch.tensor(y)).float().mean()) > 0.8
    done = commutant("merge", "a.safetensors", "b.safetensors", *NET, "-o", "end.safetensors", "--weights", "0,1",
                     "--aligned", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    end, b = load_file(folder / "end.safetensors"), load_file(folder / "b.safetensors")
    assert all(torch.equal(end[k], v) for k, v in b.items())


def test_symmetries_reads_like_a_table(folder):
    done = commutant("symmetries", "nets:mlp()", "--input", "4x64", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "2 permutation groups, 10^178 permutations" in done.stdout
    assert "0.weight:0, 0.bias:0, 2.weight:1" in done.stdout
    assert "fixed by an axis of the input: 0.weight:1" in done.stdout
    assert "verified in float64" in done.stdout


def test_paths_that_the_example_does_not_take(tmp_path):
    (tmp_path / "nets.py").write_text(MODELS)
    import sys

    sys.path.insert(0, str(tmp_path))
    sys.modules.pop("nets", None)
    import nets

    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        save_file(nets.Experts().state_dict(), str(tmp_path / f"{name}.safetensors"))
    model = ("--model", "nets:Experts()", "--input", "1x4")
    for command in ("align", "merge"):
        done = commutant(command, "a.safetensors", "b.safetensors", *model, "-o", "out.safetensors", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        warning, refusal = done.stderr.strip().splitlines()
        assert warning.startswith("commutant: warning: the example does not use 'experts.")
        assert "fit the groups into; inputs that use them may break these symmetries" in warning
        assert "b.safetensors computes a different function on fresh inputs" in refusal
        assert "nothing was written" in refusal
        assert "--also" in refusal
        assert not (tmp_path / "out.safetensors").exists()
    done = commutant("align", "a.safetensors", "b.safetensors", *model, "--also", "200x4", "--also", "200x4", "-o",
                     "out.safetensors", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    x, nets_ab = torch.randn(300, 4) * 3, [nets.Experts(), nets.Experts()]
    for net, name in zip(nets_ab, ("b", "out"), strict=True):
        net.load_state_dict(load_file(tmp_path / f"{name}.safetensors"))
    torch.testing.assert_close(nets_ab[0](x), nets_ab[1](x))
    done = commutant("symmetries", "nets:Experts()", "--input", "1x4", cwd=tmp_path)
    assert "may break these symmetries" in done.stdout


def test_a_hugging_face_folder_with_shards(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=120, n_embd=24, n_layer=2, n_head=4, n_positions=32)
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        model = transformers.GPT2LMHeadModel(config)
        model.save_pretrained(tmp_path / name, max_shard_size="40KB")
    assert (tmp_path / "a" / "model.safetensors.index.json").is_file()
    done = commutant("align", "a", "b", "--model", "hf:a", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before, after = (transformers.GPT2LMHeadModel.from_pretrained(tmp_path / n) for n in ("b", "out"))
    ids = torch.randint(0, 120, (2, 9))
    torch.testing.assert_close(after(ids).logits, before(ids).logits, rtol=1e-4, atol=1e-5)
    assert not torch.equal(after.transformer.wte.weight, before.transformer.wte.weight)
    done = commutant("symmetries", "hf:a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "9 permutation groups" in done.stdout


def test_tied_entries_may_be_left_out(folder):
    torch.manual_seed(0)
    import sys

    sys.path.insert(0, str(folder))
    import nets

    a, b = nets.tied(), nets.tied()
    for name, net in (("ta", a), ("tb", b)):
        state = {k: v for k, v in net.state_dict().items() if k != "4.weight"}
        save_file(state, str(folder / f"{name}.safetensors"))
    tied = ("--model", "nets:tied()", "--input", "ids:9:2x5")
    done = commutant("align", "ta.safetensors", "tb.safetensors", *tied, "-o", "tb2.safetensors", cwd=folder)
    assert done.returncode == 0, done.stderr
    moved = load_file(folder / "tb2.safetensors")
    assert "4.weight" not in moved
    again = nets.tied()
    again.load_state_dict(moved, strict=False)
    ids = torch.randint(0, 9, (3, 5))
    torch.testing.assert_close(again(ids), b(ids), rtol=1e-4, atol=1e-5)


def test_what_is_wrong_is_said_in_a_sentence(folder):
    ab = ("a.safetensors", "b.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "a.safetensors").read_bytes()[:-100])
    (folder / "text.safetensors").write_text("hello")
    torch.save({"w": torch.ones(1)}, folder / "pickle.pt")
    (folder / "old.safetensors").write_text("mine")
    broken = load_file(folder / "a.safetensors")
    broken["0.bias"][0] = torch.nan
    save_file(broken, str(folder / "nan.safetensors"))
    half = {k: v.half() for k, v in load_file(folder / "a.safetensors").items()}
    save_file(half, str(folder / "half.safetensors"))
    out = ("-o", "x.safetensors")
    refused("there is no file none", "align", "none", "b.safetensors", *NET, *out, cwd=folder)
    refused("truncated or not a safetensors file", "align", "cut.safetensors", ab[1], *NET, *out, cwd=folder)
    refused("truncated or not a safetensors file", "align", "text.safetensors", ab[1], *NET, *out, cwd=folder)
    refused("is a pickle, which can run code", "align", "pickle.pt", ab[1], *NET, *out, cwd=folder)
    refused("'0.bias' of the target holds NaN", "align", "nan.safetensors", ab[1], *NET, *out, cwd=folder)
    refused("old.safetensors exists; give --overwrite", "align", *ab, *NET, "-o", "old.safetensors", cwd=folder)
    assert (folder / "old.safetensors").read_text() == "mine"
    refused("is one of the inputs", "align", *ab, *NET, "-o", "b.safetensors", "--overwrite", cwd=folder)
    refused("must have shape (65,), got (64,)", "align", *ab, "--model", "nets:mlp(65)", "--input", "4x64", *out,
            cwd=folder)  # fmt: skip
    refused("give an example of the model's input", "align", *ab, "--model", "nets:mlp()", *out, cwd=folder)
    refused("nets:number is an object of type int", "symmetries", "nets:number", "--input", "4x64", cwd=folder)
    refused("must give a torch.nn.Module, got function", "symmetries", "nets:mlp", "--input", "4x64", cwd=folder)
    refused("holds no config.json", "symmetries", "hf:nowhere", cwd=folder)
    refused("at least two checkpoints", "merge", "a.safetensors", *NET, *out, cwd=folder)
    refused("--weights must be 2 numbers that sum to one", "merge", *ab, *NET, *out, "--weights", "1,1", cwd=folder)
    refused("--weights must be numbers separated by commas", "merge", *ab, *NET, *out, "--weights", "a,b", cwd=folder)
    refused("F16 in half.safetensors", "merge", "a.safetensors", "half.safetensors", *NET, *out, cwd=folder)
    refused("points must be odd", "barrier", *ab, "--model", "nets:mlp()", "--evaluate", "nets:loss", "--points", 4,
            cwd=folder)  # fmt: skip
    refused("does not fit nets:normed()", "barrier", *ab, "--model", "nets:normed()", "--evaluate", "nets:loss",
            cwd=folder)  # fmt: skip
    assert not (folder / "x.safetensors").exists()
    assert not list(folder.glob("*.partial"))


def test_an_index_that_names_a_missing_shard(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "one.safetensors"}}))
    refused("names the shard one.safetensors, which is not there", "merge", tmp_path, tmp_path, "--model", "m:f", "-o",
            tmp_path / "out", cwd=tmp_path)  # fmt: skip
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    words = ("merge", tmp_path, tmp_path, "--model", "m:f", "-o", tmp_path / "o")
    refused("is not an index of safetensors shards", *words, cwd=tmp_path)


def test_no_input_is_written_over(folder, tmp_path):
    """An input is protected however the output is spelled: as a folder, by a shard's name, through the index."""
    for name in "ab":
        (tmp_path / f"s{name}").mkdir()
        state = load_file(folder / f"{name}.safetensors")
        save_file(state, str(tmp_path / f"s{name}" / "model.safetensors"))
        save_file(state, str(tmp_path / f"{name}.safetensors"))
        (tmp_path / f"d{name}").mkdir()
        halves = [dict(list(state.items())[:3]), dict(list(state.items())[3:])]
        index = {k: f"m{i}.safetensors" for i, half in enumerate(halves) for k in half}
        for i, half in enumerate(halves):
            save_file(half, str(tmp_path / f"d{name}" / f"m{i}.safetensors"))
        (tmp_path / f"d{name}" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (tmp_path / "nets.py").write_text(MODELS)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*.safetensors")}
    for first, second, out in (
        ("a.safetensors", "b.safetensors", "."),
        ("sa", "sb", "sb/model.safetensors"),
        ("sa", "sb", "sa/model.safetensors"),
        ("da", "db/model.safetensors.index.json", "db"),
        ("da/model.safetensors.index.json", "db", "da"),
    ):
        refused("is one of the inputs", "align", first, second, *NET, "-o", out, "--overwrite", cwd=tmp_path)
    refused("has shards: the output must be a folder", "align", "da", "db", *NET, "-o", "o.safetensors", cwd=tmp_path)
    refused("must be a folder, or end in", "align", "sa", "sb", *NET, "-o", "o.bin", cwd=tmp_path)
    refused("must be a folder, or end in", "align", "sa", "sb", *NET, "-o", "nets.py", cwd=tmp_path)
    nan = ("-o", "o.safetensors", "--weights", "nan,nan")
    refused("--weights must be 2 numbers that sum to one", "merge", "sa", "sb", *NET, *nan, cwd=tmp_path)
    half = {k: v.half() for k, v in load_file(tmp_path / "db" / "m1.safetensors").items()}
    save_file(half, str(tmp_path / "db" / "m1.safetensors"))
    refused("F16 in db", "merge", "da", "db", *NET, "-o", "out", cwd=tmp_path)
    assert not (tmp_path / "out").exists()
    for file, content in before.items():
        if file.name != "m1.safetensors":
            assert file.read_bytes() == content


def test_shrink(folder):
    out = folder / "small.safetensors"
    done = commutant("shrink", "a.safetensors", *NET, "-o", out.name, "--parameters", "0.6", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "parameters are left" in done.stdout
    state = load_file(out)
    assert state["0.weight"].shape[0] < 64
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    small = resize(net, state)
    assert sum(p.numel() for p in small.parameters()) <= 0.6 * sum(p.numel() for p in net.parameters())
    x, y = (torch.tensor(t) for t in pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True))
    assert (small(x.float() / 16).argmax(1) == y).float().mean() > 0.7
    again = ("shrink", "a.safetensors", *NET, "-o", out.name)
    refused("exists; give --overwrite", *again, "--beta", "0.1", cwd=folder)
    refused("give exactly one of --parameters and --beta", *again, "--overwrite", cwd=folder)
    refused("beta must be at least 0", *again, "--overwrite", "--beta", "2", cwd=folder)
    refused("parameters must be at least", *again, "--overwrite", "--parameters", "0.0001", cwd=folder)
    refused("--criterion must be", *again, "--overwrite", "--beta", "0", "--criterion", "size", cwd=folder)
    refused("does not fit", "shrink", "small.safetensors", *NET, "-o", "x.safetensors", "--beta", "0", cwd=folder)
    assert load_file(out)["0.weight"].shape == state["0.weight"].shape


def test_outputs_that_can_not_be_written_get_a_sentence(folder):
    ab = ("a.safetensors", "b.safetensors")
    before = sorted(folder.rglob("*"))
    for name in (300 * "x", 300 * "x" + ".safetensors", 250 * "x" + ".safetensors", "a.safetensors/o.safetensors"):
        for command in ("align", "merge"):
            refused("can't be written", command, *ab, *NET, "-o", name, cwd=folder)
        refused("can't be written", "shrink", ab[0], *NET, "-o", name, "--beta", "0", cwd=folder)
    refused("can't be read", "align", 300 * "x", ab[1], *NET, "-o", "o.safetensors", cwd=folder)
    assert sorted(folder.rglob("*")) == before


def test_a_folder_without_search_permission(folder, monkeypatch):
    """Simulate such a folder, since root can read everything: every access to a file fails."""
    from pathlib import Path

    from commutant import InputError
    from commutant.parameters import Checkpoint

    given, real = Checkpoint(folder / "a.safetensors"), Path.stat

    def locked(path, **options):
        if "locked" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", locked)
    monkeypatch.setattr(Path, "is_dir", lambda path: bool(locked(path)) and real(path).st_mode & 0o40000 != 0)
    monkeypatch.setattr(Path, "exists", lambda path: bool(locked(path)))
    for target in (folder / "locked" / "o.safetensors", folder / "locked" / "o"):
        with pytest.raises(InputError, match=r"can't be written: Permission denied$"):
            given.places(target)


def test_a_merge_of_numbers_that_are_none_is_refused(folder):
    broken = load_file(folder / "b.safetensors")
    for value in (torch.nan, torch.inf):
        broken["4.bias"][0] = value
        save_file(broken, str(folder / "broken.safetensors"))
        out = ("-o", "out.safetensors")
        for more in (("--aligned",), ()):
            line = ("merge", "a.safetensors", "broken.safetensors", *NET, *out, *more)
            refused("'4.bias' holds NaN or infinities", *line, cwd=folder)
        refused("'4.bias' holds NaN", "align", "a.safetensors", "broken.safetensors", *NET, *out, cwd=folder)
    assert not (folder / "out.safetensors").exists()
    assert not list(folder.glob("*.partial"))


def test_a_loss_that_is_a_tensor(folder):
    line = ("barrier", "a.safetensors", "b.safetensors", "--model", "nets:mlp()", "--points", 3, "--evaluate")
    done = commutant(*line, "nets:tensor", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    refused("must be one real number", *line, "nets:nothing", cwd=folder)
    refused("must be one real number", *line, "nets:meta", cwd=folder)
    refused("nets:ends did not return a number: SystemExit: 0", *line, "nets:ends", cwd=folder)


def test_hugging_face_folders_are_made_whole(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=60, n_embd=24, n_layer=1, n_head=4, n_positions=16)
    for name, seed, size in (("a", 0, "1GB"), ("b", 1, "1GB"), ("sharded", 2, "20KB")):
        torch.manual_seed(seed)
        transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / name, max_shard_size=size)
        (tmp_path / name / "tokenizer_config.json").write_text("{}")
        (tmp_path / name / "training_args.bin").write_text("no weights")
        for own in ("source.spm", "bpe.codes", "dict.txt", "normalizer.json"):
            (tmp_path / name / own).write_text(own)
    load = transformers.GPT2LMHeadModel.from_pretrained
    ids = torch.randint(0, 60, (2, 9))
    for command, first, second, out in (
        ("merge", "a", "b", "new/merged"),
        ("align", "a", "b", "aligned"),
        ("align", "a", "sharded", "shards"),
        ("merge", "a/model.safetensors", "b", "from_file"),
    ):
        done = commutant(command, first, second, "--model", "hf:a", "-o", out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / out / "tokenizer_config.json").read_text() == "{}"
        assert not (tmp_path / out / "training_args.bin").exists()
        assert all(
            (tmp_path / out / own).exists() for own in ("source.spm", "bpe.codes", "dict.txt", "normalizer.json")
        )
        logits = load(tmp_path / out)(ids).logits
        if command == "align":
            torch.testing.assert_close(logits, load(tmp_path / second)(ids).logits, rtol=1e-4, atol=1e-5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    refused("config.json exists; give --overwrite", "merge", "a", "b", "--model", "hf:a", "-o", "other", cwd=tmp_path)
    assert [f.name for f in (tmp_path / "other").iterdir()] == ["config.json"]
    done = commutant("shrink", "sharded", "--model", "hf:a", "-o", "small", "--parameters", "0.9", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "from_pretrained does not know these widths" in done.stdout
    from commutant.parameters import Checkpoint

    index = json.loads((tmp_path / "small" / "model.safetensors.index.json").read_text())
    before = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    small = dict(Checkpoint(tmp_path / "small"))
    assert index["metadata"]["total_size"] == sum(v.numel() * v.element_size() for v in small.values())
    assert index["metadata"]["total_size"] < before["metadata"]["total_size"]
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(tmp_path / "small"))
    assert resize(model, small).eval()(ids).logits.shape == (2, 9, 60)
