"""Models made independent of order, and scratch tokens after the input of a decoder."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from commutant import InputError
from commutant.permutations import Canonicalize, ScratchPad


def lstm(features=3):
    torch.manual_seed(0)
    network = nn.LSTM(features, 5, batch_first=True)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = network

        def forward(self, x):
            return self.lstm(x)[0]

    return Whole()


@pytest.mark.parametrize("key", [0, -1, lambda x: x.square().sum(-1), nn.Linear(3, 1)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_order_has_no_influence(key, ties):
    x = torch.randint(0, 2, (4, 6, 3)).float() if ties else torch.randn(4, 6, 3)
    p = torch.randperm(6)
    model = lstm()
    whole, elements = Canonicalize(model, key), Canonicalize(model, key, "elements")
    if not (ties and isinstance(key, nn.Module)):  # a layer rounds by place in the batch
        assert torch.equal(whole(x), whole(x[:, p]))
        assert torch.equal(elements(x)[:, p], elements(x[:, p]))
    assert not torch.allclose(model(x), model(x[:, p]))
    soft = Canonicalize(model, key, temperature=0.3)
    assert torch.allclose(soft(x), soft(x[:, p]), atol=1e-5)
    soft = Canonicalize(model, key, "elements", temperature=0.3)
    assert torch.allclose(soft(x)[:, p], soft(x[:, p]), atol=1e-5)


def test_elements_are_sorted_by_the_key():
    x = torch.tensor([[[3.0, 1], [1, 5], [2, 0], [1, 4]]])
    assert Canonicalize(nn.Identity())(x)[0].tolist() == [[1, 4], [1, 5], [2, 0], [3, 1]]
    assert torch.equal(Canonicalize(nn.Identity(), output="elements")(x), x)
    valid = torch.tensor([[True, True, False, True]])
    assert Canonicalize(nn.Identity())(x, valid)[0].tolist() == [[1, 4], [1, 5], [3, 1], [0, 0]]


def test_keys_are_compared_in_their_own_precision():
    stamps = torch.tensor([1700000003, 1700000001, 1700000002, 1700000000], dtype=torch.float64)
    x = torch.stack([torch.arange(4.0, dtype=torch.float64), stamps], 1)[None]
    sort = Canonicalize(nn.Identity(), lambda x: x[..., 1].long())
    assert sort(x)[0, :, 0].tolist() == [3, 1, 2, 0]


@pytest.mark.usefixtures("unchecked")
def test_there_is_one_zero():
    x = torch.tensor([[[0.0], [-0.0], [1.0]]])
    model = Canonicalize(lambda y: 1 / y)
    assert torch.equal(model(x), model(x[:, [1, 0, 2]]))


@pytest.mark.usefixtures("unchecked")
def test_outputs_of_equal_elements_share_their_mean_in_half_precision():
    model = Canonicalize(lambda y: torch.full(y.shape[:2], 60_000.0, dtype=torch.float16), output="elements")
    assert model(torch.zeros(1, 3, 2)).tolist() == [[60_000.0] * 3]
    soft = Canonicalize(lambda y: y.sum(-1), output="elements", temperature=0.1)
    assert soft(torch.rand(2, 3, 2)).shape == (2, 3)


def test_a_soft_sort_tends_to_the_hard_one_and_trains_the_key():
    x, key = torch.randn(3, 5, 2), nn.Linear(2, 1)
    hard, soft = Canonicalize(lstm(2), key), Canonicalize(lstm(2), key, temperature=1e-4)
    assert torch.allclose(soft(x), hard(x), atol=1e-3)
    Canonicalize(lstm(2), key, temperature=0.5)(x).sum().backward()
    assert float(key.weight.grad.abs().sum()) > 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Canonicalize(nn.Identity(), "x"), "key must be the index of a feature or a function"),
        (lambda: Canonicalize(nn.Identity(), output="rows"), "output must be one of whole, elements"),
        (lambda: Canonicalize(nn.Identity(), temperature=0.0), "temperature must be a positive number"),
        (lambda: Canonicalize(nn.Identity(), 3)(torch.rand(1, 2, 3)), r"a feature in 0\.\.2, got 3"),
        (lambda: Canonicalize(nn.Identity(), lambda x: x)(torch.rand(1, 2, 3)), "one number for each element"),
        (lambda: Canonicalize(nn.Identity())(torch.full((2, 2, 3), torch.nan)), "keys of row 0 of the batch are NaN"),
        (lambda: Canonicalize(nn.Identity())(torch.rand(2, 3)), r"shape \(batch, n, features\)"),
        (lambda: Canonicalize(nn.Flatten(), output="elements")(torch.rand(2, 3, 4)), r"must return \(2, 3\) rows"),
        (
            lambda: Canonicalize(nn.Identity(), temperature=1.0)(torch.rand(1, 2, 3), torch.ones(1, 2).bool()),
            "leave out valid",
        ),
        (lambda: Canonicalize(nn.Identity())(torch.rand(1, 2, 3), torch.ones(1, 3).bool()), "valid must be boolean"),
        (lambda: ScratchPad(nn.Identity(), 2), "features must be given"),
        (lambda: ScratchPad(nn.Identity(), 0, features=2), "scratch must be a whole number"),
        (lambda: ScratchPad(nn.Identity(), 2, features=2)(torch.rand(1, 3, 4)), "x must be token ids"),
        (lambda: ScratchPad(nn.Identity(), 2, features=2)(torch.zeros(1, 3).long()), "must be embeddings"),
        (lambda: ScratchPad(nn.Identity(), 2, 9, 2)(torch.rand(1, 3, 2)), "at most the length with scratch tokens, 5"),
        (lambda: ScratchPad(nn.Flatten(), 2, features=2)(torch.rand(1, 3, 2)), "an output at each position"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_scratch_tokens_follow_the_input():
    pad = ScratchPad(nn.Identity(), 3, 4, features=2)
    x = torch.rand(2, 5, 2)
    out = pad(x)
    assert torch.equal(out[:, 0], x[:, -1])
    assert torch.equal(out[:, 1:], pad.tokens.expand(2, -1, -1))
    assert [n for n, _ in pad.named_parameters()] == ["tokens"]
    zero = ScratchPad(nn.Identity(), 3, features=2, learned=False)
    assert not list(zero.parameters())
    assert float(zero(x).abs().sum()) == 0


@pytest.mark.usefixtures("unchecked")
def test_a_hugging_face_decoder_gets_room_to_write():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=32)).eval()
    pad = ScratchPad(model, 4)
    tokens = torch.randint(0, 20, (2, 6))
    out = pad(tokens)
    assert out.shape == (2, 4, 20)
    embedded = torch.cat([model.get_input_embeddings()(tokens), pad.tokens.expand(2, -1, -1)], 1)
    assert torch.allclose(out, model(inputs_embeds=embedded).logits[:, -4:], atol=1e-5)
    out.sum().backward()
    assert float(pad.tokens.grad.abs().sum()) > 0
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    padded = pad(tokens, attention_mask=mask)
    assert torch.allclose(padded[0], out[0], atol=1e-5)
    assert torch.allclose(padded[1], pad(tokens[1:, 2:])[0], atol=1e-5)  # padding shifts no positions
    assert "embedding.weight" not in pad.state_dict()
    with pytest.raises(InputError, match="attention_mask must be a tensor"):
        pad(tokens, attention_mask=[[1] * 6] * 2)
    other = torch.nn.Embedding(20, 16)
    model.set_input_embeddings(other)
    assert not torch.allclose(pad(tokens), out, atol=1e-3)
    with pytest.raises(InputError, match="pad on the left"):
        pad(tokens, attention_mask=mask.flip(1))


class Mean(nn.Module):
    """Mean of the elements, and each element minus it."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x, valid):
        mean = (x * valid[..., None]).sum(1) / valid.sum(1, keepdim=True)
        return mean if self.output == "whole" else x - mean[:, None]


@pytest.mark.parametrize("output", ["whole", "elements"])
def test_a_model_with_an_argument_for_it_is_told_what_padding_is(output):
    x = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    model = Canonicalize(Mean(output), output=output)
    expected = x.mean(1) if output == "whole" else x - x.mean(1, keepdim=True)
    torch.testing.assert_close(model(x), expected)
    wide, valid = torch.full((1, 7, 3), 9.0), torch.zeros(1, 7, dtype=torch.bool)
    places = [5, 0, 3, 2]
    wide[0, places], valid[0, places] = x[0], True
    found = model(wide, valid)
    torch.testing.assert_close(found if output == "whole" else found[:, places], expected)
    soft = Canonicalize(Mean("whole"), temperature=0.1)
    torch.testing.assert_close(soft(x), x.mean(1), atol=1e-4, rtol=0)


@pytest.mark.usefixtures("unchecked")
def test_wrappers_of_a_model_are_told_what_padding_is():
    x, valid = torch.randn(2, 5, 3), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    expected = Canonicalize(Mean("whole"))(x, valid)
    averaged = torch.optim.swa_utils.AveragedModel(Mean("whole"))
    compiled = torch.compile(Mean("whole"), backend="eager")
    for model in (averaged, compiled, functools.partial(Mean("whole"))):
        torch.testing.assert_close(Canonicalize(model)(x, valid), expected)
    assert Canonicalize(torch.sum)(x, valid).shape == ()
    with pytest.raises(InputError, match="valid must be boolean of shape"):
        Canonicalize(Mean("whole"))(x, [[True] * 5] * 2)


@pytest.mark.usefixtures("unchecked")
def test_whole_numbers_of_equal_elements_are_not_averaged():
    x = torch.tensor([[[1.0], [1.0], [2.0]]])
    ids = torch.tensor([[16777217, 16777218, 16777219]])
    model = Canonicalize(lambda y: ids, output="elements")
    assert model(x).tolist() == [[16777217, 16777217, 16777219]]
    assert model(x[:, [2, 0, 1]]).tolist() == [[16777219, 16777217, 16777217]]


@pytest.mark.usefixtures("unchecked")
def test_scratch_pads_take_the_arguments_of_hugging_face():
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=8)
    pad = ScratchPad(GPT2LMHeadModel(config).eval(), 3)
    ids = torch.randint(20, (2, 5))
    assert torch.equal(pad(input_ids=ids), pad(ids))
    assert torch.equal(pad(input_ids=ids, attention_mask=torch.ones(2, 5).long()), pad(ids))
    for call, message in (
        (lambda: pad(torch.randint(20, (2, 6))), "the model has 8 positions"),
        (lambda: pad(), "x must be a tensor of token ids or embeddings"),
        (lambda: pad(ids.tolist()), "x must be a tensor of token ids or embeddings"),
        (lambda: pad(ids, labels=ids), "labels belong to the positions of the answer"),
    ):
        with pytest.raises(InputError, match=message):
            call()
