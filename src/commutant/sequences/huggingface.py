"""A causal language model of recurrent blocks, as Hugging Face models are: configuration, saving, generate.

Needs the extra `hf` (transformers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError, require
from ._block import CELLS, BlockState, RNNBlock
from ._find import METHODS as _METHODS
from ._language_arguments import (
    check_beside,
    check_embeddings,
    check_generation,
    check_others,
    check_state,
    check_tokens,
)
from ._layers import ParallelRecurrence, State

_hf: Any = require("transformers", "hf")
_checkpointing: Any = require("transformers.modeling_layers", "hf").GradientCheckpointingLayer
_output: Any = require("transformers.utils", "hf").ModelOutput


class ParaRNNConfig(_hf.PretrainedConfig):  # type: ignore[misc]
    """The shape of a `ParaRNNForCausalLM`.

    Args:
        vocab_size: tokens.
        hidden_size: features (the paper: 1024 at 400M, 2048 at 1B, 2560 at 2.9B, 4096 at 7B).
        num_hidden_layers: blocks.
        cell, num_heads, conv_size, a_max, method: see `RNNBlock`.
        mlp_size: hidden features of the MLP; 8/3 of hidden_size, rounded up to a multiple of 256, when absent, which
            gives the paper's numbers of parameters.
        initializer_range: standard deviation of embeddings and linear maps.
        tie_word_embeddings: whether input and output embeddings are one; the paper's are two.

    Raises:
        InputError: For an unknown cell or method, or a size that is not a positive integer.
    """

    model_type = "pararnn"

    def __init__(
        self,
        vocab_size: int = 50_432,
        hidden_size: int = 1024,
        num_hidden_layers: int = 24,
        cell: str = "paragru",
        num_heads: int = 4,
        conv_size: int = 4,
        mlp_size: int | None = None,
        a_max: float | None = 0.5,
        method: str = "auto",
        initializer_range: float = 0.02,
        tie_word_embeddings: bool = False,
        **options: Any,
    ) -> None:
        sizes = {"vocab_size": vocab_size, "hidden_size": hidden_size, "num_hidden_layers": num_hidden_layers}
        _check_sizes({**sizes, "num_heads": num_heads, "conv_size": conv_size}, 1)
        _check_sizes({} if mlp_size is None else {"mlp_size": mlp_size}, 0)
        if hidden_size % num_heads:
            raise InputError(f"num_heads must divide hidden_size, got {num_heads} and {hidden_size}")
        if cell not in CELLS:
            raise InputError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
        if method not in _METHODS:
            raise InputError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
        if a_max is not None and not (_is_number(a_max) and a_max > 0):
            raise InputError(f"a_max must be a positive number or None, got {a_max!r}")
        if not _is_number(initializer_range) or initializer_range < 0:
            raise InputError(f"initializer_range must be a standard deviation, got {initializer_range!r}")
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.cell, self.num_heads, self.conv_size = cell, num_heads, conv_size
        self.mlp_size = -(-8 * hidden_size // 768) * 256 if mlp_size is None else mlp_size
        self.a_max, self.method, self.initializer_range = a_max, method, initializer_range
        self.use_cache = options.pop("use_cache", True)
        super().__init__(tie_word_embeddings=tie_word_embeddings, **options)


def _check_sizes(sizes: dict[str, Any], least: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} must be an integer of at least {least}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass
class ParaRNNOutput(_output):  # type: ignore[misc]
    """What the model returns.

    Attributes:
        loss: mean cross entropy of the next token, when labels were given.
        logits: `(batch, time, vocab_size)`.
        state: of every block, to go on from; its size does not depend on how much was read.
        hidden_states: before the first and behind every block, when asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: list[BlockState] | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class _Block(_checkpointing, RNNBlock):  # type: ignore[misc]
    """A block whose activations can be recomputed in the backward pass."""


class ParaRNNForCausalLM(_hf.PreTrainedModel, _hf.GenerationMixin):  # type: ignore[misc]
    """A causal language model of `RNNBlock`s: `from_pretrained`, `save_pretrained`, `generate`, `Trainer`.

    Trains in parallel over time; generates at a constant cost a token. Padding, on either side, is skipped: a row's
    logits, state and loss are those of the row alone. Importing this module registers the model with `AutoConfig` and
    `AutoModelForCausalLM`.

    Example:
        >>> config = ParaRNNConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2)
        >>> model = ParaRNNForCausalLM(config)
        >>> model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=4, do_sample=False, pad_token_id=0).shape
        torch.Size([1, 7])
    """

    config_class = ParaRNNConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["_Block"]  # noqa: RUF012
    _is_stateful = True
    _tied_weights_keys = {"lm_head.weight": "embeddings.weight"}  # noqa: RUF012
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean: Trainer divides by its accumulation steps itself

    def __init__(self, config: ParaRNNConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.embeddings = nn.Embedding(config.vocab_size, width)
        self.blocks = nn.ModuleList(
            _Block(width, config.cell, config.conv_size, config.num_heads, config.mlp_size, config.a_max, config.method)
            for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(width)
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize the parameters of one module, except those that a checkpoint holds."""
        init = require("transformers.initialization", "hf")  # its functions skip what was loaded
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, nn.RMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, RNNBlock):
            for scale in (module.mixer_scale, module.mlp_scale) if module.mlp_size else (module.mixer_scale,):
                init.ones_(scale)
        elif isinstance(module, nn.Conv1d):
            module.reset_parameters()  # transformers guards the functions that this calls
        elif isinstance(module, ParallelRecurrence):
            for name, parameter in module.named_parameters(recurse=False):
                if not getattr(parameter, "_is_hf_initialized", False):
                    module.reset_parameter(name, parameter)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # there are no keys and values to keep

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of tokens."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of tokens."""
        self.embeddings = value  # type: ignore[assignment]

    def get_output_embeddings(self) -> nn.Module:
        """The map to logits."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the map to logits."""
        self.lm_head = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        state: list[BlockState] | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> ParaRNNOutput | tuple[Any, ...]:
        """Logits of the next token at every position.

        Args:
            input_ids: `(batch, time)`.
            attention_mask: `(batch, time)`, 0 at padding, which lies before or behind a row's tokens.
            state: what an earlier call returned; the tokens go on from there.
            inputs_embeds: `(batch, time, hidden_size)` in place of input_ids.
            labels: `(batch, time)`, usually input_ids; shifted inside; -100 and padding are left out.
            use_cache: whether to return the state; by default when generating or evaluating.
            output_hidden_states: whether to return what lies between the blocks; by default as the configuration says.
            return_dict: False for a tuple; by default as the configuration says.

        Raises:
            InputError: For arguments of transformers that this model has no use for, as `position_ids`.
        """
        check_others(others)
        x = self._embedded(input_ids, inputs_embeds)
        check_beside(x, attention_mask, labels, state, len(self.blocks))
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if return_dict is None:
            return_dict = self.config.return_dict
        order = back = lengths = None
        if attention_mask is not None and not attention_mask[:, -x.shape[1] :].all():
            order, back, lengths = _tokens_first(attention_mask[:, -x.shape[1] :].bool())
            x = x.gather(1, order[:, :, None].expand_as(x))
        keep = self.config.use_cache and not self.training if use_cache is None else use_cache
        states: list[BlockState] = []
        hidden = [x]
        for i, block in enumerate(self.blocks):
            before = None if state is None else state[i]
            if x.shape[1] == 1 and lengths is None and not torch.is_grad_enabled():
                y, after = block.step(x[:, 0], before)  # type: ignore[operator]
                x = y[:, None]
            else:
                x, after = block(x, before, lengths=lengths)
            states.append(after)
            hidden.append(x)
        if back is not None:
            hidden = [h.gather(1, back[:, :, None].expand_as(h)) for h in hidden]
        logits = self.lm_head(self.norm(hidden[-1]))
        loss = None
        if labels is not None:
            loss = _next_token_loss(logits, labels, order, lengths)
        shown = tuple(hidden) if output_hidden_states else None
        out = ParaRNNOutput(loss=loss, logits=logits, state=states if keep else None, hidden_states=shown)
        return out if return_dict else out.to_tuple()

    def _embedded(self, ids: Tensor | None, embeddings: Tensor | None) -> Tensor:
        if (ids is None) == (embeddings is None):
            raise InputError("give input_ids or inputs_embeds, and not both")
        if ids is None:
            return check_embeddings(embeddings, self.embeddings.weight)
        check_tokens(ids)
        try:
            return self.embeddings(ids)  # type: ignore[no-any-return]
        except IndexError as error:
            low, high = int(ids.min()), int(ids.max())
            last = self.embeddings.weight.shape[0] - 1
            raise InputError(f"input_ids must be tokens from 0 to {last}, got {low} to {high}") from error

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        state: Any = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        read: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Return the tokens that the state has not seen: the last one, once this call has read the others."""
        if state is not None and read and options.get("use_cache", True):
            return {"input_ids": input_ids[:, -1:], "state": state, "use_cache": True}
        if not read and attention_mask is not None and not attention_mask[:, -1].all():
            raise InputError("generate needs the padding in front of the prompts (padding_side='left')")
        prompt = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        return {
            **prompt,
            "attention_mask": attention_mask,
            "state": state,
            "use_cache": options.get("use_cache", True),
        }

    def _update_model_kwargs_for_generation(self, outputs: Any, model_kwargs: dict[str, Any], **options: Any) -> Any:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, **options)
        model_kwargs["read"] = True
        if model_kwargs.get("use_cache", True):  # else every token is read again from the state that was given
            model_kwargs["state"] = outputs.get("state")
        return model_kwargs

    def _expand_inputs_for_generation(self, expand_size: int = 1, **options: Any) -> Any:
        """Repeat prompts, and the states that they go on from, for beams and samples."""
        ids, options = super()._expand_inputs_for_generation(expand_size=expand_size, **options)
        state = options.get("state")
        if state is not None and expand_size > 1:
            check_state(state, len(self.blocks))
            rows = torch.arange(len(state[0][0]), device=state[0][0].device)
            options["state"] = _take_rows(state, rows.repeat_interleave(expand_size))
        return ids, options

    def _reorder_cache(self, state: list[BlockState] | None, beam_idx: Tensor) -> list[BlockState] | None:
        """Return the states of the beams that go on."""
        return None if state is None else _take_rows(state, beam_idx)

    def generate(self, *inputs: Any, **options: Any) -> Any:
        """Generate as `GenerationMixin.generate` does; a `state` goes on from what an earlier call has read.

        Raises:
            InputError: For padding behind the prompt, and for options that need a cache of keys and values.
        """
        check_generation(self.generation_config, inputs, options)
        return super().generate(*inputs, **options)


_hf.AutoConfig.register(ParaRNNConfig.model_type, ParaRNNConfig, exist_ok=True)
_hf.AutoModelForCausalLM.register(ParaRNNConfig, ParaRNNForCausalLM, exist_ok=True)
# Trainer shifts the labels of label smoothing for the models that this table names, and for no others
_names: Any = require("transformers.models.auto.modeling_auto", "hf").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
_names[ParaRNNConfig.model_type] = ParaRNNForCausalLM.__name__


def _take_rows(state: list[BlockState], rows: Tensor) -> list[BlockState]:
    def take(part: State) -> State:
        return part.index_select(1, rows) if isinstance(part, Tensor) else tuple(p.index_select(1, rows) for p in part)

    return [(past.index_select(0, rows), take(recurrent)) for past, recurrent in state]


def _next_token_loss(logits: Tensor, labels: Tensor, order: Tensor | None, lengths: Tensor | None) -> Tensor:
    """Return the mean cross entropy of each token given those before it in its row; zero where there is none."""
    if order is not None and lengths is not None:  # as if each row stood alone: its tokens side by side
        logits, labels = logits.gather(1, order[:, :, None].expand_as(logits)), labels.gather(1, order)
        padding = torch.arange(labels.shape[1], device=labels.device) >= lengths[:, None]
        labels = labels.masked_fill(padding, -100)
    targets = labels[:, 1:].flatten().long()
    try:
        total = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, reduction="sum")
    except IndexError as error:
        raise InputError(
            f"labels must be tokens from 0 to {logits.shape[-1] - 1}, or -100 where there is none, got "
            f"{int(labels.min())} to {int(labels.max())}"
        ) from error
    return total / (targets != -100).sum().clamp(min=1)


def _tokens_first(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The order that brings each row's tokens to the front, the way back, and their numbers."""
    lengths = mask.sum(1)
    if (lengths == 0).any():
        raise InputError("attention_mask hides every token of a row")
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    return order, order.argsort(dim=1), lengths
