"""Checkpoints are restored whole, only for the same training, and nothing is unpickled."""

import json
import shutil

import pytest
import torch

from commutant import InputError, RunError
from commutant.training import Checkpoints, fit


def stopped(folder, steps=4, model=None, **options):
    """Run a training that leaves a checkpoint in the folder."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1) if model is None else model
    draw = lambda g, n: torch.randn(n, 2, generator=g)  # noqa: E731
    options = {"batch_size": 2, "learning_rate": 0.1, "seed": 0, "checkpoint_every": 2, **options}
    return fit(model, draw, lambda m, x: m(x).square().mean(), steps=steps, folder=folder, **options)


def test_a_checkpoint_is_restored_whole_or_not_at_all(tmp_path, caplog):
    """A damaged state restores nothing: neither weights without their steps nor steps that were edited by hand."""
    whole = stopped(tmp_path / "a").model.state_dict()
    for number, damage in enumerate(
        (
            lambda state: state["optimizer"].pop("param_groups"),
            lambda state: state.update(step=3),
            lambda state: state.pop("extra"),
            lambda state: state["optimizer"].update(numbers={"0": {"step": 1.0}}),
        )
    ):
        folder = tmp_path / f"b{number}"
        stopped(folder)
        path = folder / "step-000000004" / "state.json"
        state = json.loads(path.read_text())
        damage(state)
        path.write_text(json.dumps(state))
        again = stopped(folder)
        assert "state.json does not match its hash" in caplog.text
        assert all(torch.equal(again.model.state_dict()[name], value) for name, value in whole.items())
        caplog.clear()


def test_checkpoints_of_another_training_are_refused(tmp_path):
    stopped(tmp_path)
    for options, said in (
        ({"learning_rate": 0.2}, "learning_rate was 0.1 and is 0.2"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"steps": 8}, "steps was 4 and is 8"),
        ({"batch_size": 4}, "batch_size was 2 and is 4"),
        ({"clip": None}, "clip was 1.0 and is None"),
        ({"model": torch.nn.Sequential(torch.nn.Linear(2, 1))}, "0.bias has shape None"),
    ):
        with pytest.raises(InputError, match=r"belongs to another training run: .*" + said):
            stopped(tmp_path, **options)


def test_tied_weights_are_saved_and_resumed(tmp_path):
    def tied():
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        model[1].weight = model[0].weight
        return model

    first = stopped(tmp_path, model=tied()).model
    again = stopped(tmp_path, model=tied()).model
    assert again[0].weight is again[1].weight
    assert torch.equal(first[0].weight, again[0].weight)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    import pickle

    def refuse(*_):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, model, optimizer, {"losses": []})
    other = torch.nn.Linear(2, 2)
    fresh = torch.optim.AdamW(other.parameters())
    assert checkpoints.load(other, fresh) == (3, {"losses": []})
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(fresh.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert fresh.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_a_checkpoint_that_cannot_be_written_is_a_sentence_and_loses_nothing(tmp_path, monkeypatch):
    from commutant.training import _checkpoint

    stopped(tmp_path, checkpoint_every=4)

    def full(*_):
        raise _checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    shutil.rmtree(tmp_path / "step-000000004")
    stopped(tmp_path, steps=4, checkpoint_every=2)
    shutil.rmtree(tmp_path / "step-000000004")
    monkeypatch.setattr(_checkpoint, "save_file", full)
    with pytest.raises(RunError, match=r"can't write checkpoint .*step-000000004.*No space left"):
        stopped(tmp_path)
    assert (tmp_path / "step-000000002").is_dir()


def test_a_checkpoint_of_another_dtype_or_precision_is_refused_and_copies_are_left_alone(tmp_path):
    stopped(tmp_path / "a")
    with pytest.raises(InputError, match=r"bias has dtype torch.float32, the model has torch.float64"):
        stopped(tmp_path / "a", model=torch.nn.Linear(2, 1).double())
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    with pytest.raises(InputError, match="precision was '32-true' and is 'bf16-mixed'"):
        stopped(tmp_path / "a", fabric=fabric)
    stopped(tmp_path / "b", steps=8)
    shutil.copytree(tmp_path / "b" / "step-000000008", tmp_path / "b" / "step-000000001-mine")
    shutil.rmtree(tmp_path / "b" / "step-000000008")
    stopped(tmp_path / "b", steps=8)
    assert (tmp_path / "b" / "step-000000001-mine").is_dir()


def test_an_optimizer_of_another_kind_is_refused(tmp_path):
    model = torch.nn.Linear(2, 1)
    Checkpoints(tmp_path).save(1, model, torch.optim.AdamW(model.parameters()), {})
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="its optimizer is of another kind, as 'amsgrad'"):
        Checkpoints(tmp_path).load(model, other)
    assert "momentum" in other.param_groups[0]
