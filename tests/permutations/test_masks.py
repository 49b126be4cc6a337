"""Reach of attention masks: against paths, against models, and what it rules out."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import and_masks, create_mask

from commutant import InputError
from commutant.permutations import (
    causal_floor,
    causal_mask,
    full_mask,
    inverse_permutation_feasible,
    mask_of_function,
    measured_visibility,
    min_scratch,
    prefix_mask,
    routing_feasible,
    visible_inputs,
    window_mask,
)


def random_mask(n, seed):
    mask = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) < 0.25
    return mask | torch.eye(n, dtype=torch.bool).roll(seed % 3, 1)  # some rows do not attend to themselves


def paths(mask, layers):
    """Pairs joined by a path of at most that many attended steps, by breadth-first search."""
    n, out = len(mask), torch.zeros_like(mask)
    for i in range(n):
        front = {i}
        for _ in range(layers):
            front |= {j for k in front for j in range(n) if mask[k, j]}
        out[i, list(front)] = True
    return out


@pytest.mark.parametrize("seed", range(6))
def test_the_reach_is_that_of_paths(seed):
    mask = random_mask(7, seed)
    for layers in (1, 2, 3, 7):
        assert torch.equal(visible_inputs(mask, layers), paths(mask, layers))
    assert torch.equal(visible_inputs(mask), paths(mask, 7))
    other = random_mask(7, seed + 10)
    two = [mask, other]
    mixed = paths(mask, 1).long()
    expected = (paths(other, 1).long() @ mixed) > 0
    assert torch.equal(visible_inputs(two), expected)


def test_the_reach_of_a_window_is_depth_times_window():
    for layers in range(1, 5):
        assert int(visible_inputs(window_mask(30, 4), layers)[-1].sum()) == 3 * layers + 1
    assert bool(visible_inputs(window_mask(9, 2))[-1].all())
    assert torch.equal(visible_inputs(causal_mask(6)), causal_mask(6))
    assert torch.equal(visible_inputs(prefix_mask(6, 3), 5), prefix_mask(6, 3))


class Block(nn.Module):
    """Transformer with a mask, MLPs, norms and residuals."""

    def __init__(self, masks, features=8):
        super().__init__()
        self.masks = masks
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(features, 2, 16, dropout=0.0, batch_first=True, norm_first=True) for _ in masks
        )

    def forward(self, x):
        for layer, mask in zip(self.layers, self.masks, strict=True):
            x = layer(x, src_mask=~mask)
        return x


@pytest.mark.parametrize("seed", range(4))
def test_a_model_depends_on_exactly_what_is_visible(seed):
    torch.manual_seed(seed)
    masks = [random_mask(7, seed), window_mask(7, 3), random_mask(7, seed + 20)]
    for each in (masks, masks[:1], [masks[0]] * 3):
        model = Block(each).double()
        found = measured_visibility(model, torch.randn(7, 8, dtype=torch.float64), tolerance=1e-13)
        assert torch.equal(found, visible_inputs(each))
    assert model.training


def test_what_a_causal_map_has_written_never_changes_with_later_inputs():
    """Lemma 1, bit by bit: a recurrent network and a transformer in evaluation mode."""
    torch.manual_seed(0)
    x = torch.randn(9, 8)
    lstm = nn.LSTM(8, 8, 2, batch_first=True)
    assert not bool((measured_visibility(lambda x: lstm(x)[0], x) & ~causal_mask(9)).any())
    model = Block([causal_mask(9)] * 3)
    assert torch.equal(measured_visibility(model, x, tolerance=1e-6), causal_mask(9))
    changed = x.clone()
    changed[5:] = torch.randn(4, 8)
    before, after = model.eval()(x[None]), model(changed[None])
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("order", ["PY", "YP"])
@pytest.mark.parametrize("d", range(1, 8))
def test_the_fewest_scratch_tokens_are_those_of_the_formula(d, order):
    possible = [bool(inverse_permutation_feasible(causal_mask(2 * d + s), d, s, order)) for s in range(d + 1)]
    assert possible.index(True) == min_scratch(d, order)
    assert all(possible[possible.index(True) :])
    assert bool(inverse_permutation_feasible(full_mask(2 * d), d, 0, order))
    assert bool(inverse_permutation_feasible(full_mask(2 * d), d, 0, order, layers=1))


@pytest.mark.parametrize("order", ["PY", "YP"])
@pytest.mark.parametrize("d", [2, 3])
def test_the_verdict_is_that_of_all_pairs_of_inputs(d, order):
    """Enumeration: a map is possible if no two inputs with equal visible rows need different outputs."""
    permutations = list(itertools.permutations(range(d)))
    values = list(itertools.product([0, 1], repeat=d))
    for s in range(d + 1):
        reach, seen = visible_inputs(causal_mask(2 * d + s)), {}
        conflict = False
        for p, y in itertools.product(permutations, values):
            rows = [("P", i) for i in p], [("Y", y[i]) for i in p]
            sequence = [*rows[0], *rows[1]] if order == "PY" else [*rows[1], *rows[0]]
            for j in range(d):
                place = d + s + j
                visible = tuple(r for k, r in enumerate(sequence) if reach[place, k])
                conflict |= seen.setdefault((j, visible), y[j]) != y[j]
        assert bool(inverse_permutation_feasible(causal_mask(2 * d + s), d, s, order)) == (not conflict)


@pytest.mark.parametrize("d", [2, 3])
def test_no_causal_map_is_below_the_floor(d):
    """The best answer from what is visible, over all permutations and all bits, has the error of the formula."""
    for s in range(d + 1):
        total, count = 0.0, 0
        for j in range(d):
            groups = {}
            for p in itertools.permutations(range(d)):
                for y in itertools.product([0.0, 1.0], repeat=d):
                    visible = (p, tuple(y[i] for i in p[: min(d, s + j + 1)]))
                    groups.setdefault(visible, []).append(y[j])
            for members in groups.values():
                mean = sum(members) / len(members)
                total += sum((m - mean) ** 2 for m in members)
                count += len(members)
        assert causal_floor(d, s) == pytest.approx(d * total / count)  # d independent features
    assert causal_floor(10, 9) == 0
    assert causal_floor(6, 0) == pytest.approx(0.625)
    assert causal_floor(6, 0, variance=1.0) == pytest.approx(2.5)


def test_routing_names_what_is_blocked():
    report = routing_feasible(causal_mask(5), [(0, 4), (3, 1), (2, 2), (4, 0)])
    assert not report
    assert report.blocked == ((3, 1), (4, 0))
    assert str(report).startswith("impossible: with any number of layers, the output at position 1 can't depend on")
    assert "and 1 more moves" in str(report)
    fine = routing_feasible(window_mask(5, 2), [(0, 4)], layers=4)
    assert fine.feasible
    assert "4 layers" in str(fine)
    assert not routing_feasible(window_mask(5, 2), [(0, 4)], layers=3)
    assert routing_feasible([window_mask(5, 3), causal_mask(5)], [(0, 4)]).layers == 2


def test_a_million_layers_take_no_time():
    assert bool(visible_inputs(window_mask(8, 2), 3_000_000_000)[-1].all())


def test_each_part_of_a_model_keeps_its_mode():
    model = Block([causal_mask(4)] * 2)
    model.layers[0].eval()
    measured_visibility(model, torch.randn(4, 8))
    assert model.training
    assert not model.layers[0].training
    assert model.layers[1].training


def test_mask_functions_of_flex_attention():
    def causal(b, h, q, k):
        return q >= k

    def near(b, h, q, k):
        return q - k < 3

    both = and_masks(causal, near)
    assert torch.equal(mask_of_function(causal, 6), causal_mask(6))
    assert torch.equal(mask_of_function(both, 6), window_mask(6, 3))
    document = torch.tensor([0, 0, 1, 1, 1, 2])

    def packed(b, h, q, k):
        return (document[q] == document[k]) & (q >= k)

    assert torch.equal(mask_of_function(packed, 6), create_mask(packed, 1, 1, 6, 6, device="cpu")[0, 0])
    with pytest.raises(InputError, match="one boolean for each query and key"):
        mask_of_function(lambda b, h, q, k: q + k, 4)


HF = {
    "gpt2": ("GPT2Config", {"n_layer": 2}, [causal_mask(6)] * 2),
    "llama": ("LlamaConfig", {"num_hidden_layers": 1}, [causal_mask(6)]),
    "mistral": ("MistralConfig", {"num_hidden_layers": 2, "sliding_window": 3}, [window_mask(6, 3)] * 2),
    "gemma": (
        "Gemma3TextConfig",
        {"num_hidden_layers": 6, "sliding_window": 2},
        [*[window_mask(6, 2)] * 5, causal_mask(6)],
    ),
    "bert": ("BertConfig", {"num_hidden_layers": 1}, [full_mask(6)]),
    "bert-decoder": ("BertConfig", {"num_hidden_layers": 1, "is_decoder": True}, [causal_mask(6)]),
}


@pytest.mark.parametrize("name", HF)
def test_masks_of_hugging_face_models_are_what_their_outputs_depend_on(name):
    import transformers

    from commutant.permutations.huggingface import attention_masks

    kind, options, expected = HF[name]
    config = getattr(transformers, kind)(**options)
    found = attention_masks(config, 6)
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    from commutant.permutations.huggingface import _tiny

    model = _tiny(transformers, config)
    model.set_attn_implementation("sdpa")
    x = torch.randn(6, model.get_input_embeddings().weight.shape[1])
    for parameter in model.parameters():  # initial weights hardly mix positions
        parameter.data.mul_(5)
    assert torch.equal(measured_visibility(model, x, tolerance=1e-4), visible_inputs(expected))
    again = attention_masks(model, 6)
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
    assert model.config._attn_implementation == "sdpa"


def test_models_without_attention_weights_are_refused():
    import transformers

    from commutant.permutations.huggingface import attention_masks

    hybrid = transformers.RecurrentGemmaConfig(
        num_hidden_layers=3, attention_window_size=3, hidden_size=16, intermediate_size=16, num_attention_heads=2,
        vocab_size=16, pad_token_id=0, lru_width=16, num_key_value_heads=1,
    )  # fmt: skip
    with pytest.raises(InputError, match="other layers move data too"):
        attention_masks(hybrid, 8)
    for config in (transformers.MambaConfig(num_hidden_layers=1), transformers.T5Config(num_layers=1)):
        with pytest.raises(InputError, match=r"give masks by hand|can't be asked"):
            attention_masks(config, 6)
    with pytest.raises(InputError, match="got Linear"):
        attention_masks(nn.Linear(2, 2), 6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: visible_inputs(torch.ones(3, 4, dtype=torch.bool)), r"must be square.*got \(3, 4\)"),
        (lambda: visible_inputs(torch.ones(3, 3)), "must be a boolean tensor .True = attends., got torch.float32"),
        (lambda: visible_inputs([[True]]), "boolean tensor"),
        (lambda: visible_inputs(causal_mask(4).triu(1)), "no True in row 0, whose softmax would be NaN"),
        (lambda: visible_inputs([causal_mask(4), causal_mask(5)]), "mask of layer 1 must be square, and equal in size"),
        (lambda: visible_inputs([]), "empty list"),
        (lambda: visible_inputs([causal_mask(4)], 2), "the number of layers is that of the masks"),
        (lambda: visible_inputs(causal_mask(4), 0), "layers must be a whole number"),
        (lambda: routing_feasible(causal_mask(4), [(0, 4)]), r"positions in 0\.\.3, got \(0, 4\)"),
        (lambda: inverse_permutation_feasible(causal_mask(5), 3), "6 positions, got 5"),
        (lambda: inverse_permutation_feasible(causal_mask(6), 3, 0, "P"), "order must be one of PY, YP"),
        (lambda: routing_feasible(causal_mask(4), (0, 2)), "moves must be pairs"),
        (lambda: routing_feasible(causal_mask(4), [(0.7, 1.9)]), "moves must be pairs"),
        (lambda: prefix_mask(3, 10), "prefix must be at most the length, 3, got 10"),
        (lambda: causal_floor(3, 0, -1.0), "variance must be a positive number"),
        (lambda: mask_of_function(lambda b, h, q, k: True, 3), "must work on tensors"),
        (lambda: min_scratch(0), "d must be a whole number"),
        (lambda: causal_floor(3, -1), "scratch must be a whole number of at least 0"),
        (lambda: window_mask(4, 0), "window must be a whole number"),
        (lambda: measured_visibility(lambda x: x, torch.rand(2, 3, 4)), r"shape \(length, features\)"),
        (lambda: measured_visibility(lambda x: x.sum(1), torch.rand(3, 4)), "an output at each position"),
        (lambda: measured_visibility(lambda x: x * torch.nan, torch.rand(3, 4)), "outputs of the model are NaN"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_mask_functions_that_differ_between_heads_or_batches_are_refused():
    def by_head(b, h, q, k):
        return torch.where(h % 2 == 0, k <= q, k >= q)

    def by_document(b, h, q, k):
        return torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])[b, q] <= k

    with pytest.raises(InputError, match="differs between head 0 and head 1"):
        mask_of_function(by_head, 4)
    with pytest.raises(InputError, match="differs between batch 0 and batch 1"):
        mask_of_function(by_document, 4)
    assert torch.equal(mask_of_function(lambda b, h, q, k: by_head(0, torch.tensor(1), q, k), 4), causal_mask(4).T)
    table = torch.tensor([[0, 0, 1, 1]])  # of a single batch
    same = mask_of_function(lambda b, h, q, k: table[b, q] == table[b, k], 4)
    assert torch.equal(same, torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool())
    with pytest.raises(InputError, match="must work on tensors"):
        mask_of_function(lambda b, h, q, k: table[b, q] == table[b, k], 5)


@pytest.mark.usefixtures("unchecked")
def test_masks_of_other_kinds_say_what_to_do():
    for mask, remedy in (
        (torch.ones(2, 2).bool().numpy(), "torch.from_numpy"),
        (torch.zeros(2, 2), "one of 0 and -inf with == 0"),
        (lambda b, h, q, k: q >= k, "use mask_of_function"),
        (~causal_mask(3), "invert a mask in which True means that a pair is left out"),
    ):
        with pytest.raises(InputError, match=remedy):
            visible_inputs(mask)
    with pytest.raises(InputError, match="moves must be pairs"):
        routing_feasible(causal_mask(3), 5)
