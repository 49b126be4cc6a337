"""The table of docs/deploy.md, which says what layers can be compiled, exported, traced and written as ONNX."""

import io
import json
import logging
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import warm
from commutant import InputError
from commutant.geometry import FrameAverage
from commutant.sequences import (
    FERNN,
    SLSTM,
    SRU,
    GraphRNN,
    MinGRU,
    MinLSTM,
    ParaFERNN,
    ParaGRU,
    ParaLSTM,
    RNNBlock,
    TranslationFlow,
    parallel_rnn,
    to_sparse,
)

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
SHORT, LONG = 5, 70


class Points(nn.Module):
    def forward(self, points):
        return points.square().sum((-1, -2), keepdim=True).expand_as(points) * points


def sequence(*shape, axis):
    return lambda length: ((torch.randn(*shape[:axis], length, *shape[axis:]),), axis)


LAYERS = {
    **{
        cls.__name__: (lambda cls=cls: cls(3, 4), sequence(2, 3, axis=0))
        for cls in (ParaGRU, ParaLSTM, MinGRU, MinLSTM, SRU, SLSTM)
    },
    "RNNBlock": (lambda: RNNBlock(4, heads=2), sequence(2, 4, axis=1)),
    "parallel_rnn": (lambda: parallel_rnn(nn.GRUCell(3, 4)), sequence(2, 3, axis=1)),
    "to_sparse": (lambda: to_sparse(nn.GRU(3, 4)), sequence(2, 3, axis=0)),
    "GraphRNN": (lambda: GraphRNN((torch.tensor([[0, 1], [2, 2]]), 3), 3), sequence(2, 3, axis=1)),
    "FERNN": (lambda: FERNN(1, 2, TranslationFlow.grid(1, dims=1)), sequence(2, 1, 5, axis=1)),
    "ParaFERNN": (lambda: ParaFERNN(1, 2, TranslationFlow.grid(1, dims=1)), sequence(2, 1, 5, axis=1)),
    "FrameAverage": (lambda: FrameAverage(Points(), "SO(3)"), sequence(3, axis=0)),
}


def first(out):
    return out[0] if isinstance(out, tuple) else out


def agrees(written, layer, given):
    torch.testing.assert_close(first(written(*given)), first(layer(*given)), atol=1e-4, rtol=1e-4)


def compiled(layer, make):
    torch._dynamo.reset()
    whole = torch.compile(layer, backend="eager", fullgraph=True)
    for length in (SHORT, LONG):
        agrees(whole, layer, make(length)[0])


def compiled_with_breaks(layer, make):
    torch._dynamo.reset()
    whole = torch.compile(layer, backend="eager")
    for length in (SHORT, LONG):
        agrees(whole, layer, make(length)[0])


def exported(layer, make, dynamic):
    given, axis = make(SHORT)
    steps = ({axis: torch.export.Dim("steps", min=2, max=4096)},) if dynamic else None
    program = torch.export.export(layer, given, dynamic_shapes=steps, strict=False)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for length in (SHORT, LONG) if dynamic else (SHORT,):
        agrees(again, layer, make(length)[0])


def traced(layer, make):
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(layer, make(SHORT)[0], check_trace=False), file)
    file.seek(0)
    again = torch.jit.load(file)
    for length in (SHORT, LONG):
        agrees(again, layer, make(length)[0])


WAYS = {
    "compile": compiled,
    "export": lambda layer, make: exported(layer, make, True),
    "export, one length": lambda layer, make: exported(layer, make, False),
    "jit.trace": traced,
}


def table():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}


def works(way, layer, make):
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            way(layer, make)
    except Exception:
        return False
    finally:
        logging.disable(logging.NOTSET)
    return True


def judge(name):
    make, inputs = LAYERS[name]
    layer = make().eval()
    layer(*inputs(SHORT)[0])
    found = {way: "yes" if works(run, layer, inputs) else "no" for way, run in WAYS.items()}
    if found["compile"] == "no" and works(compiled_with_breaks, layer, inputs):
        found["compile"] = "graph breaks"
    return found


def test_the_table_says_what_works(deep):
    """Run in a separate process, because run-time checks of annotations break graphs."""
    names = [*LAYERS] if deep else ["ParaGRU", "to_sparse"]
    code = f"import runpy; runpy.run_path({__file__!r}, run_name='__main__')"
    done = warm.python(code, *names)
    assert done.returncode == 0, done.stderr
    assert table().keys() == LAYERS.keys()
    said = {name: {way: table()[name][way] for way in WAYS} for name in names}
    assert json.loads(done.stdout.splitlines()[-1]) == said


def test_what_is_saved_is_read_where_the_library_is_imported(tmp_path):
    layer, x = SLSTM(3, 4).eval(), torch.randn(SHORT, 2, 3)
    torch.export.save(torch.export.export(layer, (x,)), tmp_path / "layer.pt2")
    torch.save((x, layer(x)[0].detach()), tmp_path / "data.pt")
    code = f"""
import torch, commutant.sequences
x, y = torch.load(r"{tmp_path}/data.pt")
torch.testing.assert_close(torch.export.load(r"{tmp_path}/layer.pt2").module()(x)[0], y)
"""
    done = warm.python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("unchecked")
def test_a_trace_that_would_fix_the_number_of_steps_is_refused():
    for name in ("parallel_rnn", "to_sparse"):
        make, inputs = LAYERS[name]
        with pytest.raises(InputError, match=r"torch\.jit\.trace would fix the number of steps"):
            torch.jit.trace(make(), inputs(SHORT)[0])


def test_onnx_holds_plain_operators_only(tmp_path, deep):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    for name, row in table().items() if deep else [("ParaGRU", table()["ParaGRU"])]:
        make, inputs = LAYERS[name]
        assert row["ONNX"] == ("yes, one length" if works(written_as_onnx, make().eval(), inputs) else "no"), name


def written_as_onnx(layer, make):
    onnxruntime = pytest.importorskip("onnxruntime")
    given, _ = make(SHORT)
    program = torch.onnx.export(layer, given, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (found, *_) = session.run(None, {session.get_inputs()[0].name: given[0].numpy()})
    torch.testing.assert_close(torch.from_numpy(found), first(layer(*given)), atol=1e-4, rtol=1e-4)


if __name__ == "__main__":
    print(json.dumps({name: judge(name) for name in sys.argv[1:]}))
