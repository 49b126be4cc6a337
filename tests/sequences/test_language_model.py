"""RNNBlock and the Hugging Face model: decoding, padding, saving and the paper's sizes."""

import copy

import pytest
import torch

import warm
from commutant import InputError
from commutant.sequences import RNNBlock

transformers = pytest.importorskip("transformers")
from commutant.sequences.huggingface import ParaRNNConfig, ParaRNNForCausalLM  # noqa: E402

CELLS = ("paragru", "paralstm", "mingru", "minlstm")


def small(cell="paragru", **options):
    config = ParaRNNConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=2, num_heads=2, mlp_size=24, cell=cell, pad_token_id=0,
        eos_token_id=None, bos_token_id=None, initializer_range=0.3, **options,
    )  # fmt: skip
    return ParaRNNForCausalLM(config).eval()


@pytest.mark.parametrize("cell", CELLS)
def test_block_decodes_what_it_was_trained_for(cell):
    block, x = RNNBlock(16, cell, heads=2), torch.randn(3, 90, 16)
    whole, last = block(x)
    first, state = block(x[:, :41])
    rest, end = block(x[:, 41:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(end, last, atol=1e-5, rtol=0)
    state, steps = None, []
    for t in range(10):
        y, state = block.step(x[:, t], state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), whole[:, :10], atol=1e-5, rtol=0)


def test_block_with_padding_keeps_the_state_of_the_real_steps():
    block, x = RNNBlock(16, "paralstm", heads=2), torch.randn(3, 20, 16)
    lengths = torch.tensor([20, 1, 7])
    y, state = block(x, lengths=lengths)
    for i, n in enumerate(lengths.tolist()):
        alone, own = block(x[i : i + 1, :n])
        torch.testing.assert_close(y[i : i + 1, :n], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(state[0][i : i + 1], own[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(state[1][0][:, i : i + 1], own[1][0], atol=1e-5, rtol=0)


def test_block_trains_and_bad_input_is_named(unchecked):
    block = RNNBlock(8, heads=2, conv=1, mlp_size=0)
    block(torch.randn(2, 5, 8))[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())
    for call, said in (
        (lambda: RNNBlock(8, "elman"), "'elman'"),
        (lambda: RNNBlock(9, heads=4), "heads must divide"),
        (lambda: RNNBlock(8, heads=2, mlp_size=-8), "mlp_size must be"),
        (lambda: RNNBlock(8.0, heads=2), "d_model must be a whole number"),
        (lambda: block(torch.randn(2, 0, 8)), "at least one step"),
        (lambda: block(torch.randn(2, 5, 8), lengths=torch.tensor([0, 5])), "lengths must lie between 1 and 5"),
    ):
        with pytest.raises(InputError, match=said):
            call()


@pytest.mark.parametrize("cell", CELLS)
def test_generation_is_reading(cell):
    """Compare greedy tokens generated from the state with those from rereading all tokens at every step."""
    model, prompt = small(cell), torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    found = model.generate(prompt, max_new_tokens=12, do_sample=False)
    ids = prompt
    with torch.no_grad():
        for _ in range(12):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, ids)
    assert torch.equal(model.generate(prompt, max_new_tokens=12, do_sample=False, use_cache=False), ids)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_says_nothing(side):
    model = small()
    rows = [torch.tensor([3, 1, 4]), torch.tensor([9, 2, 6, 5, 3, 5, 8]), torch.tensor([7])]
    ids, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(7 - len(row), 7) if side == "left" else slice(0, len(row))
        ids[i, place], mask[i, place] = row, 1
    logits = model(ids, attention_mask=mask).logits
    for i, row in enumerate(rows):
        place = slice(7 - len(row), 7) if side == "left" else slice(0, len(row))
        torch.testing.assert_close(logits[i, place], model(row[None]).logits[0], atol=1e-5, rtol=0)
    if side == "left":
        found = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
        for i, row in enumerate(rows):
            alone = model.generate(row[None], max_new_tokens=6, do_sample=False)
            assert torch.equal(found[i, 7:], alone[0, len(row) :])


def test_generation_goes_on_from_a_state():
    model, ids = small(), torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
    whole = model.generate(ids, max_new_tokens=5, do_sample=False)
    state = model(ids[:, :4]).state
    assert torch.equal(model.generate(ids[:, 4:], state=state, max_new_tokens=5, do_sample=False)[0, 3:], whole[0, 7:])


@pytest.mark.parametrize("labelled", ["-100", "the tokens", "some -100"])
@pytest.mark.parametrize("layout", ["left", "right", "both sides", "holes"])
def test_the_loss_of_a_padded_batch_is_that_of_its_rows(layout, labelled):
    model = small()
    rows = [torch.tensor([3, 1, 4, 1]), torch.tensor([9, 2, 6, 5, 3, 5, 8]), torch.tensor([7])]
    places = {
        "left": [slice(5, 9), slice(2, 9), slice(8, 9)],
        "right": [slice(0, 4), slice(0, 7), slice(0, 1)],
        "both sides": [slice(3, 7), slice(1, 8), slice(4, 5)],
        "holes": [[0, 3, 4, 8], [0, 1, 2, 3, 4, 6, 8], [5]],
    }[layout]
    ids, mask = torch.full((3, 9), 2), torch.zeros(3, 9).long()
    labels = torch.full((3, 9), -100) if labelled == "-100" else ids.clone()
    kept = [row.clone() for row in rows]
    if labelled == "some -100":
        kept[0][:2] = -100
        kept[1][3] = -100
    for i, place in enumerate(places):
        ids[i, place], mask[i, place], labels[i, place] = rows[i], 1, kept[i]
    count = sum(int((k[1:] != -100).sum()) for k in kept)
    pairs = zip(rows, kept, strict=True)
    alone = sum(model(r[None], labels=k[None]).loss * (k[1:] != -100).sum() for r, k in pairs) / count
    for given in (mask, mask.bool(), mask.float()):
        torch.testing.assert_close(model(ids, attention_mask=given, labels=labels).loss, alone)


def test_a_batch_without_targets_has_no_loss_and_no_mask_means_no_padding():
    model, ids = small(), torch.randint(0, 23, (2, 6))
    assert model(ids[:, :1], labels=ids[:, :1]).loss == 0
    loss = model(ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert loss == 0
    every = model(ids, labels=ids, attention_mask=torch.ones_like(ids)).loss
    assert torch.equal(model(ids, labels=ids).loss, every)
    assert torch.equal(model(ids, labels=ids.int()).loss, every)


def test_a_model_is_built_beside_the_trainer():
    code = """
from commutant.sequences.huggingface import ParaRNNConfig, ParaRNNForCausalLM
try:
    from transformers import Trainer
except ImportError:
    pass
ParaRNNForCausalLM(ParaRNNConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, mlp_size=32))
assert not ParaRNNForCausalLM.accepts_loss_kwargs
"""
    done = warm.python(code)
    assert done.returncode == 0, done.stderr


def test_it_is_saved_and_loaded(tmp_path):
    model, ids = small(tie_word_embeddings=True), torch.randint(0, 23, (2, 9))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    again = ParaRNNForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert again.lm_head.weight is again.embeddings.weight
    assert copy.deepcopy(model).state_dict().keys() == model.state_dict().keys()


def test_the_auto_classes_know_it(tmp_path):
    model, ids = small(), torch.randint(0, 23, (2, 9))
    model.save_pretrained(tmp_path)
    assert isinstance(transformers.AutoConfig.from_pretrained(tmp_path), ParaRNNConfig)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert type(transformers.AutoModelForCausalLM.from_config(model.config)) is ParaRNNForCausalLM


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(padded, reentrant):
    model, ids = small().train(), torch.randint(0, 23, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, :3] = int(not padded)
    calls = []
    for block in model.blocks:
        block.in_proj.register_forward_hook(lambda *_: calls.append(1))
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": reentrant})
        model.zero_grad()
        calls.clear()
        model(ids, attention_mask=mask, labels=ids).loss.backward()
        assert len(calls) == (4 if checkpointed else 2)
        gradients.append([p.grad.clone() for p in model.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("cell", CELLS)
def test_beams_are_those_of_reading_everything_again(cell):
    model, prompt = small(cell), torch.tensor([[2, 3, 1, 4, 1], [9, 2, 6, 5, 3]])
    mask = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "num_beams": 3}
    found = model.generate(prompt, num_return_sequences=3, **options)
    assert torch.equal(found, model.generate(prompt, num_return_sequences=3, use_cache=False, **options))
    report = model.generate(prompt, length_penalty=0.0, output_scores=True, return_dict_in_generate=True, **options)
    ids = report.sequences
    log_p = model(ids, attention_mask=torch.cat([mask, torch.ones(2, 8).long()], 1)).logits.log_softmax(-1)
    likelihood = log_p[:, 4:-1].gather(2, ids[:, 5:, None]).sum((1, 2))
    torch.testing.assert_close(report.sequences_scores, likelihood, atol=1e-4, rtol=0)


def test_beams_and_samples_go_on_from_a_state():
    model, ids = small("paralstm"), torch.tensor([[3, 1, 4, 1, 5, 9], [9, 2, 6, 5, 3, 5]])
    state = model(ids[:, :4]).state
    for options in ({"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}):
        whole = model.generate(ids, max_new_tokens=5, do_sample=False, **options)
        rest = model.generate(ids[:, 4:], state=state, max_new_tokens=5, do_sample=False, **options)
        assert torch.equal(rest[:, 2:], whole[:, 6:])
    sampled = []
    for given, options in ((ids, {}), (ids[:, 4:], {"state": state})):
        torch.manual_seed(0)
        sampled.append(model.generate(given, max_new_tokens=5, do_sample=True, num_return_sequences=3, **options))
    assert torch.equal(sampled[0][:, 6:], sampled[1][:, 2:])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"use_cache": False}])
def test_generation_from_embeddings_is_that_from_tokens(options):
    model, ids = small(), torch.tensor([[2, 3, 1, 4, 1], [9, 2, 6, 5, 3]])
    mask = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    options = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, **options}
    expected = model.generate(ids, **options)[:, 5:]
    embedded = model.embeddings(ids).detach()
    assert torch.equal(model.generate(inputs_embeds=embedded, **options), expected)
    assert torch.equal(model.generate(ids, inputs_embeds=embedded, **options)[:, 5:], expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cell": "bogus"}, "cell must be one of paragru, paralstm, mingru, minlstm, got 'bogus'"),
        ({"cell": None}, "cell must be one of"),
        ({"method": "magic"}, "method must be one of"),
        ({"hidden_size": 0}, "hidden_size must be a whole number of at least 1, got 0"),
        ({"hidden_size": 16.0}, "hidden_size must be a whole number"),
        ({"hidden_size": "16"}, "hidden_size must be a whole number"),
        ({"vocab_size": -1}, "vocab_size must be a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number"),
        ({"num_heads": 3, "hidden_size": 16}, "num_heads must divide hidden_size = 16, got 3"),
        ({"num_heads": True}, "num_heads must be a whole number"),
        ({"conv_size": 0}, "conv_size must be a whole number"),
        ({"mlp_size": -1}, "mlp_size must be a whole number of at least 0"),
        ({"a_max": 0.0}, "a_max must be a positive number"),
        ({"a_max": float("nan")}, "a_max must be a positive number"),
        ({"a_max": "0.5"}, "a_max must be a positive number"),
        ({"initializer_range": -0.1}, "initializer_range must not be negative"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_configuration_names_a_wrong_value(options, said):
    with pytest.raises(InputError, match=said):
        ParaRNNConfig(**options)


def test_recurrences_keep_their_own_initialization():
    model = small()
    weight = model.blocks[0].recurrence.weight_hh_l0
    assert weight.abs().max() <= 0.5
    assert weight.std() > 0.1
    assert torch.equal(model.blocks[0].mixer_scale, torch.ones(16))
    assert 0.25 < model.embeddings.weight.std() < 0.35


def test_labels_are_shifted_and_gradients_reach_everything():
    model, ids = small().train(), torch.randint(0, 23, (2, 9))
    out = model(ids, labels=ids)
    expected = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(out.loss, expected)
    assert out.state is None
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    loss, logits = model(ids, labels=ids, return_dict=False)[:2]
    torch.testing.assert_close(loss, expected)
    assert logits.shape == (2, 9, 23)
    assert len(model(ids, output_hidden_states=True).hidden_states) == 3
    embedded = model(inputs_embeds=model.embeddings(ids)).logits
    assert torch.equal(embedded, out.logits)


@pytest.mark.parametrize(
    ("width", "layers", "heads", "millions"),
    [(1024, 24, 4, 406), (2048, 24, 4, 1420), (2560, 32, 2, 2900), (4096, 32, 4, 6760)],
)
def test_the_papers_numbers_of_parameters(width, layers, heads, millions):
    config = ParaRNNConfig(hidden_size=width, num_hidden_layers=1, num_heads=heads)
    with torch.device("meta"):
        model = ParaRNNForCausalLM(config)
    one = sum(p.numel() for p in model.blocks.parameters())
    total = sum(p.numel() for p in model.parameters()) + (layers - 1) * one
    assert total / 1e6 == pytest.approx(millions, rel=0.005)


def test_errors(unchecked):
    model, ids = small(), torch.randint(0, 23, (2, 9))
    for call, said in (
        (lambda: model(), "input_ids or inputs_embeds"),
        (lambda: model(ids, attention_mask=torch.zeros(2, 9)), "every token"),
        (lambda: model(ids, attention_mask=torch.ones(2, 5)), r"attention_mask must have .*\(2, 9\), got .*\(2, 5\)"),
        (lambda: model(ids[:1], state=model(ids).state), "state must hold 1 rows, as many as the tokens, got 2"),
        (lambda: model.generate(ids[:1], state=model(ids).state, max_new_tokens=1), "state must hold 1 rows"),
        (lambda: model(ids, labels=ids[:, 1:]), r"labels must have .*\(2, 9\), got .*\(2, 8\)"),
        (lambda: small("elman"), "'elman'"),
        (lambda: model.generate(ids, attention_mask=torch.eye(9)[[0, 1]], max_new_tokens=2), "padding_side='left'"),
    ):
        with pytest.raises(InputError, match=said):
            call()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attention_maks": torch.ones(2, 5)}, "attention_maks is not an argument of the model: it takes input_ids"),
        ({"position_ids": torch.tensor([[0, 1, 2, 0, 1]] * 2)}, "position_ids is not .* one text in each row"),
        ({"past_key_values": [1]}, "past_key_values is not an argument .* state="),
        ({"output_attentions": True}, "has no attentions"),
        ({"attention_mask": [[1] * 5] * 2}, r"attention_mask must have the shape .*got list"),
        ({"attention_mask": torch.ones(2, 7)}, r"attention_mask must have .*\(2, 5\), got torch.float32 \(2, 7\)"),
        ({"attention_mask": torch.tensor([[-torch.inf] + [0.0] * 4] * 2)}, "1 at tokens and 0 at padding.*-inf"),
        ({"state": torch.zeros(2, 16)}, "state must be the state returned by the model, .* 2 blocks, got Tensor"),
        ({"state": []}, "for each of its 2 blocks, got 0"),
        ({"labels": torch.full((2, 5), 23)}, "labels must be tokens from 0 to 22, or -100 .* got values from 23 to 23"),
        ({"labels": torch.full((2, 5), -1)}, "labels must be tokens from 0 to 22"),
        ({"labels": torch.full((2, 5), 1.5)}, "labels must be integers, got torch.float32"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_arguments_that_would_be_ignored_or_misread_are_named(options, said):
    with pytest.raises(InputError, match=said):
        small()(torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input_ids": torch.tensor([[3, 23]])}, "tokens from 0 to 22, got 3 to 23"),
        ({"input_ids": torch.tensor([[-1, 3]])}, "tokens from 0 to 22, got -1 to 3"),
        ({"input_ids": torch.tensor([3, 1])}, r"integers \(batch, time\) .*torch.int64 \(2,\)"),
        ({"input_ids": torch.tensor([[3.0, 1.0]])}, "integers .*torch.float32"),
        ({"input_ids": torch.zeros(2, 0).long()}, r"at least one token per row, got torch.int64 \(2, 0\)"),
        ({"inputs_embeds": torch.randn(2, 5, 8)}, r"inputs_embeds must be \(batch, time, 16\)"),
        ({"inputs_embeds": torch.randn(2, 5, 16).double()}, "must be torch.float32 .*got torch.float64"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_tokens_are_named(options, said):
    with pytest.raises(InputError, match=said):
        small()(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inputs": torch.tensor([3, 1, 4])}, "input_ids must be integers"),
        ({"inputs": torch.zeros(2, 0).long()}, "input_ids must be integers"),
        ({"inputs": torch.tensor([[3, 1, 0], [3, 1, 4]])}, "padding_side='left'"),  # transformers sees the padding
        ({"inputs": torch.tensor([[3, 1]]), "attention_mask": [[1, 1]]}, "attention_mask must be a tensor"),
        ({"inputs": torch.tensor([[3, 1]]), "past_key_values": transformers.DynamicCache()}, "state="),
        ({"inputs": torch.tensor([[3, 1]]), "guidance_scale": 1.5}, "guidance_scale=1.5 .* add use_cache=False"),
        ({"inputs": torch.tensor([[3, 1]]), "output_attentions": True}, "has no attentions"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_generate_cannot_do_is_named(options, said):
    with pytest.raises(InputError, match=said):
        small().generate(max_new_tokens=2, do_sample=False, **options)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_generation_without_a_cache_starts_from_the_given_state(options):
    model, ids = small("paralstm"), torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    state = model(ids[:, :3]).state
    options = {"max_new_tokens": 5, "do_sample": False, **options}
    whole = model.generate(ids, **options)
    assert torch.equal(model.generate(ids[:, 3:], state=state, use_cache=False, **options)[:, 2:], whole[:, 5:])


def test_guidance_compares_with_the_prompts_last_token():
    model, ids = small(), torch.tensor([[3, 1, 4, 1, 5]])
    found = model.generate(ids, guidance_scale=1.5, use_cache=False, max_new_tokens=4, do_sample=False)
    for t in range(5, 9):
        with_prompt = model(found[:, :t]).logits[:, -1].log_softmax(-1)
        without = model(found[:, 4:t]).logits[:, -1].log_softmax(-1)
        assert (1.5 * (with_prompt - without) + without).argmax() == found[0, t]


def test_the_configuration_says_what_is_returned():
    ids = torch.tensor([[3, 1, 4]])
    assert len(small(output_hidden_states=True)(ids).hidden_states) == 3
    assert small(output_hidden_states=True)(ids, output_hidden_states=False).hidden_states is None
    assert type(small(return_dict=False)(ids)) is tuple
    assert small(return_dict=False)(ids, return_dict=True).logits.shape == (1, 3, 23)


def test_what_a_checkpoint_lacks_is_initialized(tmp_path):
    """Check that `_init_weights` fills every missing parameter, which transformers allocates without values."""
    model = small()
    with torch.no_grad():
        model.blocks[0].recurrence.weight_hh_l0.fill_(2.0)  # beyond a_max, but loading must keep it
    model.save_pretrained(tmp_path)
    deeper, info = ParaRNNForCausalLM.from_pretrained(tmp_path, num_hidden_layers=3, output_loading_info=True)
    assert len(info["missing_keys"]) == 14
    assert all(torch.equal(deeper.state_dict()[name], value) for name, value in model.state_dict().items())
    for name, new in deeper.blocks[2].named_parameters():
        like = model.blocks[1].get_parameter(name)
        assert new.detach().mean() == pytest.approx(float(like.detach().mean()), abs=0.5), name
        assert new.numel() == 1 or new.detach().std() == pytest.approx(float(like.detach().std()), abs=0.3), name
    assert deeper.blocks[2].recurrence.weight_hh_l0.abs().max() <= 0.5
    other = ParaRNNForCausalLM.from_pretrained(tmp_path, cell="paralstm", ignore_mismatched_sizes=True)
    assert other.blocks[0].recurrence.weight_hh_l0.abs().max() <= 0.5
    assert torch.equal(other.lm_head.weight, model.lm_head.weight)


def test_label_smoothing_of_trainer_shifts_the_labels():
    """Check the labels with smoothing, which `Trainer` shifts only for the models in its table."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert small()._get_name() in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
