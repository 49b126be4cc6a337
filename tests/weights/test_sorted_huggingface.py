"""Sorted networks of Hugging Face models, and their training with Trainer and with Lightning."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.weights import Menu, SortedModule
from commutant.weights.huggingface import SelfSpeculative, SortedTrainerMixin, extract_pretrained

transformers = pytest.importorskip("transformers")

DECODERS = {
    "llama": ("model.layers.*", "model.layers.*.mlp.gate_proj"),
    "qwen2": ("model.layers.*", "model.layers.*.mlp.gate_proj"),
    "gpt2": ("transformer.h.*", "transformer.h.*.mlp.c_fc"),
}


def decoder(kind, seed=0):
    torch.manual_seed(seed)
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=50, n_embd=24, n_layer=4, n_head=4, n_positions=96, n_inner=40, **tokens
        )
        return transformers.GPT2LMHeadModel(config).eval()
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 4,
             "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 96, **tokens}  # fmt: skip
    if kind == "qwen2":
        return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes)).eval()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()


def logits(output):
    return output.logits


def sorted_decoder(kind, **sizes):
    model, (layers, inner) = decoder(kind), DECODERS[kind]
    dims = {"depth": layers, "width": inner, "heads": "auto"}
    x = {"input_ids": torch.randint(3, 50, (2, 7))}
    return SortedModule(model, x, {name: dims[name] for name in sizes}, Menu.product(**sizes), outputs=logits), x


@pytest.mark.parametrize("kind", DECODERS)
def test_sub_networks_are_models_with_a_smaller_configuration(kind, tmp_path):
    heads = {} if kind == "gpt2" else {"heads": [0.5, 1.0]}  # its configuration has no number for the width of heads
    nested, x = sorted_decoder(kind, depth=[2, 4], width=[10, 40], **heads)
    for budget in nested.menu:
        with nested.budget(**budget):
            wanted = nested(**x).logits
        small = extract_pretrained(nested, budget)
        assert torch.equal(small(**x).logits, wanted)
        assert small.config.num_hidden_layers == budget["depth"]
        small.save_pretrained(tmp_path)
        again = type(small).from_pretrained(tmp_path)
        assert torch.equal(again(**x).logits, wanted)


def test_layers_of_different_sizes_have_no_configuration():
    model, x = decoder("llama"), {"input_ids": torch.randint(3, 50, (2, 7))}
    nested = SortedModule(
        model, x, {"width": "model.layers.0.mlp.gate_proj"}, Menu.product(width=[10, 40]), outputs=logits
    )
    assert nested.extract({"width": 10})(**x).logits.shape == (2, 7, 50)
    with pytest.raises(InputError, match="use extract, which needs none"):
        extract_pretrained(nested, {"width": 10})
    plain = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    nested = SortedModule(plain, torch.randn(2, 4), {"width": "auto"}, Menu.product(width=[4, 8]))
    with pytest.raises(InputError, match="must be a model of transformers"):
        extract_pretrained(nested, {"width": 4})


@pytest.mark.parametrize("kind", DECODERS)
def test_self_speculative_text_is_that_of_the_full_model(kind):
    nested, _ = sorted_decoder(kind, depth=[1, 2, 4])
    for seed in range(3):
        prompt = torch.randint(3, 50, (1, 5), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            text = prompt
            for _ in range(30):
                text = torch.cat([text, nested.module(input_ids=text).logits[:, -1:].argmax(-1)], 1)
                if int(text[0, -1]) == 2:
                    break
        for depth in (1, 2, 4):
            found = SelfSpeculative(nested, {"depth": depth}).generate(prompt, max_new_tokens=30)
            assert torch.equal(found, text)
    faster = SelfSpeculative(nested, {"depth": 4})
    calls = []
    nested.module.register_forward_hook(lambda *_: calls.append(1))
    faster.generate(prompt, max_new_tokens=24, eos_token_id=None)
    assert len(calls) < 8  # drafts that agree are checked several at a time
    assert nested.module.config.num_hidden_layers == 4
    assert faster.draft.config is not nested.module.config
    weight = dict(faster.draft.named_parameters())
    key = next(k for k in weight if k.endswith("mlp.down_proj.weight") or k.endswith("mlp.c_proj.weight"))
    full = dict(nested.module.named_parameters())[key]
    assert weight[key].data_ptr() == full.data_ptr()  # no second copy of the weights
    with pytest.raises(InputError, match="one prompt"):
        faster.generate(prompt.repeat(2, 1))
    with pytest.raises(InputError, match="greedy"):
        faster.generate(prompt, do_sample=True)


def test_encoders_with_poolers_and_ties():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=36
    )
    model = transformers.BertForMaskedLM(config).eval()
    x = {"input_ids": torch.randint(3, 50, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
    dims = {
        "depth": "bert.encoder.layer.*",
        "width": "*.intermediate.dense",
        "stream": "bert.embeddings.LayerNorm",
        "heads": "auto",
    }
    menu = Menu.chain(
        [{"depth": 1, "width": 9, "stream": 12, "heads": 2}, {"depth": 3, "width": 36, "stream": 24, "heads": 4}]
    )
    nested = SortedModule(model, x, dims, menu, outputs=logits)
    small = nested.extract(menu[0])
    assert small.bert.embeddings.word_embeddings.weight is small.cls.predictions.decoder.weight
    with nested.budget(**menu[0]):
        assert torch.equal(nested(**x).logits, small(**x).logits)
    assert small.bert.embeddings.word_embeddings.weight.shape == (50, 12)


def test_trainer_draws_a_sub_network_for_each_micro_batch(tmp_path):
    pytest.importorskip("accelerate")

    class SortedTrainer(SortedTrainerMixin, transformers.Trainer):
        pass

    nested, _ = sorted_decoder("llama", depth=[1, 4])
    rows = [{"input_ids": torch.randint(3, 50, (6,)), "labels": torch.randint(3, 50, (6,))} for _ in range(8)]
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2, report_to=[],
        use_cpu=True, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = SortedTrainer(model=nested.module, args=arguments, train_dataset=rows)
    with pytest.raises(InputError, match=r"set trainer\.nested"):
        trainer.train()
    trainer.nested = nested
    deepest = []
    nested.module.model.layers[0].register_forward_hook(lambda *_: deepest.append(len(nested.module.model.layers)))
    trainer.train()
    assert set(deepest) <= {1, 4}
    assert len(deepest) == 6
    assert len(nested.module.model.layers) == 4


@pytest.mark.usefixtures("unchecked")
def test_lightning_draws_a_sub_network_for_each_batch(tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")
    from commutant.weights.lightning import SortedCallback

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
            self.widths = {"train": [], "validation": []}

        def training_step(self, batch, _):
            self.widths["train"].append(len(self.model[0].bias))
            return self.model(batch).square().mean()

        def validation_step(self, batch, _):
            self.widths["validation"].append(len(self.model[0].bias))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    task = Task()
    nested = SortedModule(task.model, torch.randn(3, 4), {"width": "auto"}, Menu.product(width=[2, 8]))
    data = torch.utils.data.DataLoader(torch.randn(24, 4), batch_size=2)
    trainer = lightning.Trainer(max_epochs=1, callbacks=[SortedCallback(nested)], logger=False, accelerator="cpu",
                                enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
                                default_root_dir=tmp_path, num_sanity_val_steps=1)  # fmt: skip
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(task, data, data)
    assert set(task.widths["train"]) == {2, 8}
    assert set(task.widths["validation"]) == {8}
    assert isinstance(task.model[0].weight, nn.Parameter)
    assert task.model[0].weight.shape == (8, 4)
    with pytest.raises(InputError, match="must be a SortedModule"):
        SortedCallback(task.model)
