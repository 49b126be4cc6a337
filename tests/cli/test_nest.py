"""`commutant nest` in real processes."""

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file
from torch import nn

from commutant.weights import Menu, SortedModule, resize
from warm import commutant

NETS = """
from torch import nn

def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))

def normed():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 2))

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 16), nn.Linear(8, 2)

    def forward(self, x):
        h = self.a(x)
        return self.b(h[:, :8] * h[:, 8:])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nest")
    (folder / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    save_file(net.state_dict(), str(folder / "a.safetensors"), {"format": "pt"})
    (folder / "old.safetensors").write_bytes(b"")
    return folder


def test_sub_networks_and_their_costs(folder):
    done = commutant("nest", "nets:mlp()", "--input", "4x6", "--size", "width=4,16", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "width: 0 (16), 2 (16)" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("width=4"))
    assert row.split()[1:] == [str(6 * 4 + 4 + 20 + 15), str(4 * (6 * 4 + 16 + 12))]
    done = commutant("nest", "nets:normed()", "--input", "2x3x6x6", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("width=") == 4


def test_a_sub_network_is_written(folder):
    done = commutant("nest", "nets:mlp()", "--input", "4x6", "--dim", "first=0", "--dim", "second=2", "--size",
                     "first=8,16", "--size", "second=0.5,1.0", "--checkpoint", "a.safetensors", "--budget",
                     "first=8,second=0.5", "-o", "small.safetensors", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "first=8, second=0.5: 155 of 435 parameters" in done.stdout
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    load_model(net, str(folder / "a.safetensors"))
    x = torch.randn(4, 6)
    nested = SortedModule(net, x, {"width": "auto"}, Menu.product(width=[8, 16]))
    small = resize(net, load_file(folder / "small.safetensors"))
    with nested.budget(width=8):
        assert torch.equal(small(x), nested(x))


def test_a_hugging_face_folder_has_a_smaller_configuration(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "full")
    (tmp_path / "full" / "tokenizer.json").write_text("{}")
    done = commutant("nest", "hf:full", "--dim", "depth=model.layers.*", "--dim", "width=*.gate_proj", "--size",
                     "depth=2,4", "--checkpoint", "full", "--budget", "depth=2,width=0.5", "-o", "small",
                     cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    small = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "small")
    assert (small.config.num_hidden_layers, small.config.intermediate_size) == (2, 12)
    assert torch.equal(small.model.layers[1].mlp.gate_proj.weight, model.model.layers[1].mlp.gate_proj.weight[:12])
    assert (tmp_path / "small" / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize(("message", "arguments"), [
    ("give an example", ["nets:mlp()"]),
    ("--dim must be name=value, such as width=auto", ["nets:mlp()", "--input", "4x6", "--dim", "auto"]),
    ("--size gives 'width' twice", ["nets:mlp()", "--input", "4x6", "--size", "width=1", "--size", "width=2"]),
    ("must be numbers such as", ["nets:mlp()", "--input", "4x6", "--size", "width=a"]),
    ("can't keep 32 entries", ["nets:mlp()", "--input", "4x6", "--size", "width=32"]),
    ("both must name the same", ["nets:mlp()", "--input", "4x6", "--size", "depth=1"]),
    ("no module of the network", ["nets:mlp()", "--input", "4x6", "--dim", "depth=blocks.*"]),
    ("can't be cut", ["nets:Fixed()", "--input", "3x4"]),
    ("give --checkpoint, --budget and --output together", ["nets:mlp()", "--input", "4x6", "--budget", "width=0.5"]),
    ("the menu has no budget width=0.3", ["nets:mlp()", "--input", "4x6", "--checkpoint", "a.safetensors", "--budget",
                                          "width=0.3", "-o", "x.safetensors"]),
    ("exists; give --overwrite", ["nets:mlp()", "--input", "4x6", "--checkpoint", "a.safetensors", "--budget",
                                  "width=0.5", "-o", "old.safetensors"]),
    ("must be a file that ends in .safetensors", ["nets:mlp()", "--input", "4x6", "--checkpoint", "a.safetensors",
                                                   "--budget", "width=0.5", "-o", "small"]),
    ("would overwrite", ["nets:mlp()", "--input", "4x6", "--checkpoint", "a.safetensors", "--budget", "width=0.5",
                         "-o", "a.safetensors"]),
])  # fmt: skip
def test_what_is_wrong_is_said_in_a_sentence(folder, message, arguments):
    done = commutant("nest", *arguments, cwd=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
