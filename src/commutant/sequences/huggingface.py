"""A causal language model of recurrent blocks, as Hugging Face models are: configuration, saving, generate.

Needs the extra `hf` (transformers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError, require
from ._block import CELLS, BlockState, RNNBlock

_hf: Any = require("transformers", "hf")
_output: Any = require("transformers.utils", "hf").ModelOutput


class ParaRNNConfig(_hf.PretrainedConfig):  # type: ignore[misc]
    """The shape of a `ParaRNNForCausalLM`.

    Args:
        vocab_size: tokens.
        hidden_size: features (the paper: 1024 at 400M, 2048 at 1B, 2560 at 2.9B, 4096 at 7B).
        num_hidden_layers: blocks.
        cell, num_heads, conv_size, a_max, solver: see `RNNBlock`.
        mlp_size: hidden features of the MLP; 8/3 of hidden_size, rounded up to a multiple of 256, when absent, which
            gives the paper's numbers of parameters.
        initializer_range: standard deviation of embeddings and linear maps.
        tie_word_embeddings: whether input and output embeddings are one; the paper's are two.
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
        solver: str = "auto",
        initializer_range: float = 0.02,
        tie_word_embeddings: bool = False,
        **options: Any,
    ) -> None:
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.cell, self.num_heads, self.conv_size = cell, num_heads, conv_size
        self.mlp_size = -(-8 * hidden_size // 768) * 256 if mlp_size is None else mlp_size
        self.a_max, self.solver, self.initializer_range = a_max, solver, initializer_range
        self.use_cache = options.pop("use_cache", True)
        super().__init__(tie_word_embeddings=tie_word_embeddings, **options)


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


class ParaRNNForCausalLM(_hf.PreTrainedModel, _hf.GenerationMixin):  # type: ignore[misc]
    """A causal language model of `RNNBlock`s: `from_pretrained`, `save_pretrained`, `generate`, `Trainer`.

    Trains in parallel over time; generates at a constant cost a token. Padding, on either side, is skipped: a row's
    logits and state are those of the row alone.

    Example:
        >>> config = ParaRNNConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2)
        >>> model = ParaRNNForCausalLM(config)
        >>> model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=4, do_sample=False, pad_token_id=0).shape
        torch.Size([1, 7])
    """

    config_class = ParaRNNConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["RNNBlock"]  # noqa: RUF012
    _is_stateful = True
    _tied_weights_keys = {"lm_head.weight": "embeddings.weight"}  # noqa: RUF012
    supports_gradient_checkpointing = False
    accepts_loss_kwargs = False  # the loss is a mean: Trainer divides by its accumulation steps itself

    def __init__(self, config: ParaRNNConfig) -> None:
        super().__init__(config)
        if config.cell not in CELLS:
            raise InputError(f"cell must be one of {', '.join(CELLS)}, got {config.cell!r}")
        width = config.hidden_size
        self.embeddings = nn.Embedding(config.vocab_size, width)
        self.blocks = nn.ModuleList(
            RNNBlock(
                width, config.cell, config.conv_size, config.num_heads, config.mlp_size, config.a_max, config.solver
            )
            for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(width)
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Normal embeddings and linear maps; recurrences, convolutions and norms as they initialise themselves."""
        if isinstance(module, nn.Linear | nn.Embedding):
            require("transformers.initialization", "hf").normal_(module.weight, std=self.config.initializer_range)

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
        **_: Any,
    ) -> ParaRNNOutput | tuple[Any, ...]:
        """Logits of the next token at every position.

        Args:
            input_ids: `(batch, time)`.
            attention_mask: `(batch, time)`, 0 at padding, which lies before or behind a row's tokens.
            state: what an earlier call returned; the tokens go on from there.
            inputs_embeds: `(batch, time, hidden_size)` in place of input_ids.
            labels: `(batch, time)`, usually input_ids; shifted inside, -100 is left out.
            use_cache: whether to return the state; by default when generating or evaluating.
            output_hidden_states: whether to return what lies between the blocks.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give input_ids or inputs_embeds, and not both")
        x = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
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
            if attention_mask is not None:  # padding predicts nothing
                blind = attention_mask[:, -labels.shape[1] :][:, :-1] == 0
                labels = torch.cat([labels[:, :1], labels[:, 1:].masked_fill(blind, -100)], 1)
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        shown = tuple(hidden) if output_hidden_states else None
        out = ParaRNNOutput(loss=loss, logits=logits, state=states if keep else None, hidden_states=shown)
        return out.to_tuple() if return_dict is False else out

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        state: Any = None,
        attention_mask: Tensor | None = None,
        read: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """The tokens that the state has not seen: the last one, once this call has read the others."""
        if state is not None and read:
            return {"input_ids": input_ids[:, -1:], "state": state, "use_cache": True}
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "state": None if read else state,
            "use_cache": options.get("use_cache", True),
        }

    def _update_model_kwargs_for_generation(self, outputs: Any, model_kwargs: dict[str, Any], **options: Any) -> Any:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, **options)
        model_kwargs["state"], model_kwargs["read"] = outputs.get("state"), True
        return model_kwargs

    def generate(self, *inputs: Any, **options: Any) -> Any:
        """As `GenerationMixin.generate`, greedy or sampled; a `state` goes on from what an earlier call has read.

        Raises:
            InputError: for beams, whose states would have to be reordered; for padding behind the prompt.
        """
        mask = options.get("attention_mask")
        if mask is not None and mask.shape[1] and not mask[:, -1].all():
            raise InputError("generate needs the padding in front of the prompts (padding_side='left')")
        config = options.get("generation_config") or self.generation_config
        beams = options.get("num_beams") or getattr(config, "num_beams", None) or 1
        if beams > 1:
            raise InputError(f"ParaRNNForCausalLM generates greedily or by sampling, got num_beams={beams}")
        return super().generate(*inputs, **options)


def _tokens_first(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The order that brings each row's tokens to the front, the way back, and their numbers."""
    lengths = mask.sum(1)
    if (lengths == 0).any():
        raise InputError("attention_mask hides every token of a row")
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    return order, order.argsort(dim=1), lengths
