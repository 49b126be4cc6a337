"""Causal language model of recurrent blocks as a Hugging Face model, with configuration, saving and generation.

This module needs the extra `hf` (transformers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import finite, one_of, positive, whole
from .._errors import InputError, require
from ._block import CELLS, BlockState, RNNBlock
from ._find import METHODS as _METHODS
from ._language_arguments import (
    check_embeddings,
    check_generation,
    check_others,
    check_shapes,
    check_state,
    check_tokens,
)
from ._layers import ParallelRecurrence, State

_hf: Any = require("transformers", "hf")
_checkpointing: Any = require("transformers.modeling_layers", "hf").GradientCheckpointingLayer
_output: Any = require("transformers.utils", "hf").ModelOutput


class ParaRNNConfig(_hf.PretrainedConfig):  # type: ignore[misc]
    """Configuration of a `ParaRNNForCausalLM`.

    Args:
        vocab_size: Size of the vocabulary.
        hidden_size: Number of features (in the paper 1024 at 400M parameters, 2048 at 1B, 2560 at 2.9B, 4096 at 7B).
        num_hidden_layers: Number of blocks.
        cell: Recurrent layer, see `RNNBlock`.
        num_heads: Number of diagonal blocks of the recurrence's input maps; must divide `hidden_size`.
        conv_size: Kernel size of the causal convolution, in steps.
        mlp_size: Number of hidden features of the MLP. None for 8/3 of `hidden_size`, rounded up to a multiple of 256,
            which gives the paper's numbers of parameters.
        a_max: Bound of the recurrent weights, see `ParallelRecurrence`.
        method: Solver, see `solve_recurrence`.
        initializer_range: Standard deviation of initial embeddings and linear maps.
        tie_word_embeddings: Whether input and output embeddings share one matrix; in the paper they do not.
        options: Further options of `transformers.PretrainedConfig`, and `use_cache`.

    Raises:
        InputError: For an unknown cell or method, or sizes that do not fit.
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
        for name, size in {**sizes, "num_heads": num_heads, "conv_size": conv_size}.items():
            whole(name, size)
        if mlp_size is not None:
            whole("mlp_size", mlp_size, 0)
        if hidden_size % num_heads:
            raise InputError(f"num_heads must divide hidden_size = {hidden_size}, got {num_heads}")
        one_of("cell", cell, CELLS)
        one_of("method", method, _METHODS)
        if a_max is not None:
            positive("a_max", a_max)
        finite("initializer_range", initializer_range)
        if initializer_range < 0:
            raise InputError(f"initializer_range must not be negative, got {initializer_range!r}")
        # numbers of Python, because the configuration is saved as JSON
        self.vocab_size, self.hidden_size = int(vocab_size), int(hidden_size)
        self.num_hidden_layers, self.num_heads, self.conv_size = int(num_hidden_layers), int(num_heads), int(conv_size)
        self.mlp_size = -(-8 * self.hidden_size // 768) * 256 if mlp_size is None else int(mlp_size)
        self.a_max, self.initializer_range = None if a_max is None else float(a_max), float(initializer_range)
        self.cell, self.method = cell, method
        self.use_cache = options.pop("use_cache", True)
        super().__init__(tie_word_embeddings=tie_word_embeddings, **options)


@dataclass
class ParaRNNOutput(_output):  # type: ignore[misc]
    """Output of `ParaRNNForCausalLM`.

    Attributes:
        loss: Mean cross entropy of the next token in nats, if labels were given.
        logits: Logits of the next token, `(batch, time, vocab_size)`.
        state: State of every block, from which a later call continues; its size does not depend on the length read.
        hidden_states: Features before the first block and after every block, if requested.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: list[BlockState] | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class _Block(_checkpointing, RNNBlock):  # type: ignore[misc]
    """A block whose activations can be recomputed in the backward pass."""


class ParaRNNForCausalLM(_hf.PreTrainedModel, _hf.GenerationMixin):  # type: ignore[misc]
    """A causal language model of `RNNBlock`s, with `from_pretrained`, `save_pretrained`, `generate` and `Trainer`.

    It trains in parallel over time and generates at a constant cost per token. Padding on either side is skipped, so a
    row's logits, state and loss do not depend on its padding. Importing this module registers the model with
    `AutoConfig` and `AutoModelForCausalLM`.

    Args:
        config: Configuration of the model.

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
    accepts_loss_kwargs = False  # the loss is a mean, so Trainer must divide by its accumulation steps

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
        init = require("transformers.initialization", "hf")  # its functions skip loaded parameters
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
        """Return the embedding of tokens."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of tokens.

        Args:
            value: New embedding.
        """
        self.embeddings = value  # type: ignore[assignment]

    def get_output_embeddings(self) -> nn.Module:
        """Return the map to logits."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the map to logits.

        Args:
            value: New linear map.
        """
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
        """Return the logits of the next token at every position.

        Args:
            input_ids: Tokens `(batch, time)`.
            attention_mask: Mask `(batch, time)`, 0 at padding, which lies before or after a row's tokens.
            state: State returned by an earlier call, from which to continue.
            inputs_embeds: Embeddings `(batch, time, hidden_size)`, in place of input_ids.
            labels: Target tokens `(batch, time)`, usually input_ids; the model shifts them. -100 and padding are
                ignored.
            use_cache: Whether to return the state; by default when generating or evaluating.
            output_hidden_states: Whether to return the features between the blocks; by default as in the configuration.
            return_dict: Whether to return a `ParaRNNOutput` instead of a tuple; by default as in the configuration.
            others: Arguments of transformers that this model does not support; each must be None or False.

        Returns:
            A `ParaRNNOutput`, or a tuple of its entries.

        Raises:
            InputError: For unsupported arguments of transformers such as `position_ids`, or tensors that do not fit.
        """
        check_others(others)
        x = self._embedded(input_ids, inputs_embeds)
        check_shapes(x, attention_mask, labels, state, len(self.blocks))
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
            given = "neither" if ids is None else "both"
            raise InputError(f"exactly one of input_ids or inputs_embeds must be given, got {given}")
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
        """Return the tokens that the state has not seen, which is only the last one after the first call.

        Args:
            input_ids: All tokens so far, `(batch, time)`.
            state: State after the tokens that were read, or None.
            attention_mask: Mask of the prompt, `(batch, time)`.
            inputs_embeds: Embeddings of the prompt, in place of its tokens.
            read: Whether the prompt has been read.
            options: Further options of `generate`.
        """
        if state is not None and read and options.get("use_cache", True):
            return {"input_ids": input_ids[:, -1:], "state": state, "use_cache": True}
        if not read and attention_mask is not None and not attention_mask[:, -1].all():
            raise InputError("attention_mask must have padding before the prompts; tokenize with padding_side='left'")
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
        if model_kwargs.get("use_cache", True):  # else every call reads all tokens again from the given state
            model_kwargs["state"] = outputs.get("state")
        return model_kwargs

    def _expand_inputs_for_generation(self, expand_size: int = 1, **options: Any) -> Any:
        """Repeat prompts and their states for beams and samples."""
        ids, options = super()._expand_inputs_for_generation(expand_size=expand_size, **options)
        state = options.get("state")
        if state is not None and expand_size > 1:
            check_state(state, len(self.blocks))
            rows = torch.arange(len(state[0][0]), device=state[0][0].device)
            options["state"] = _take_rows(state, rows.repeat_interleave(expand_size))
        return ids, options

    def _reorder_cache(self, state: list[BlockState] | None, beam_idx: Tensor) -> list[BlockState] | None:
        """Return the states of the selected beams."""
        return None if state is None else _take_rows(state, beam_idx)

    def generate(self, *inputs: Any, **options: Any) -> Any:
        """Generate as `GenerationMixin.generate` does, optionally continuing from the `state` of an earlier call.

        Args:
            inputs: Positional arguments of `GenerationMixin.generate`.
            options: Keyword arguments of `GenerationMixin.generate`, and `state`.

        Raises:
            InputError: For padding after the prompt, and for options that need a cache of keys and values.
        """
        check_generation(self.generation_config, inputs, options)
        return super().generate(*inputs, **options)


_hf.AutoConfig.register(ParaRNNConfig.model_type, ParaRNNConfig, exist_ok=True)
_hf.AutoModelForCausalLM.register(ParaRNNConfig, ParaRNNForCausalLM, exist_ok=True)
# with label smoothing, Trainer shifts the labels only for the models in this table
_names: Any = require("transformers.models.auto.modeling_auto", "hf").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
_names[ParaRNNConfig.model_type] = ParaRNNForCausalLM.__name__


def _take_rows(state: list[BlockState], rows: Tensor) -> list[BlockState]:
    def take(part: State) -> State:
        return part.index_select(1, rows) if isinstance(part, Tensor) else tuple(p.index_select(1, rows) for p in part)

    return [(past.index_select(0, rows), take(recurrent)) for past, recurrent in state]


def _next_token_loss(logits: Tensor, labels: Tensor, order: Tensor | None, lengths: Tensor | None) -> Tensor:
    """Return the mean cross entropy of each token given the tokens before it in its row; zero without targets."""
    if order is not None and lengths is not None:  # bring the tokens of each row together
        logits, labels = logits.gather(1, order[:, :, None].expand_as(logits)), labels.gather(1, order)
        padding = torch.arange(labels.shape[1], device=labels.device) >= lengths[:, None]
        labels = labels.masked_fill(padding, -100)
    targets = labels[:, 1:].flatten().long()
    try:
        total = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, reduction="sum")
    except IndexError as error:
        raise InputError(
            f"labels must be tokens from 0 to {logits.shape[-1] - 1}, or -100 to ignore a position, got values from "
            f"{int(labels.min())} to {int(labels.max())}"
        ) from error
    return total / (targets != -100).sum().clamp(min=1)


def _tokens_first(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the order that brings each row's tokens to the front, its inverse, and the number of tokens per row."""
    lengths = mask.sum(1)
    if (lengths == 0).any():
        row = int((lengths == 0).nonzero()[0])
        raise InputError(f"attention_mask must keep at least one token per row, but hides every token of row {row}")
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    return order, order.argsort(dim=1), lengths
