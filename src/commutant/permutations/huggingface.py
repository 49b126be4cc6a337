"""Pointers to the tokens of a Hugging Face encoder, and the attention masks of Hugging Face models."""

from __future__ import annotations

import contextlib
import copy
import warnings
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .._checks import whole
from .._errors import InputError, require
from ..parameters import evaluating
from ._pointer_attention import Scoring
from ._pointer_constraints import Constraint
from ._pointer_decoder import PointerDecoder, PointerMemory
from ._pointer_encoders import InitialState
from ._pointer_network import Equivalent, check_loss, pointer_loss
from ._pointer_search import Decoding, Strategy, decode


class TokenPointer(nn.Module):
    """Head that writes a sequence of token positions, on any encoder that returns `last_hidden_state`.

    Use it for answers that are places of the input: the order of shuffled sentences, a chain of mentions, the spans of
    an extraction. For one span, a linear layer (`AutoModelForQuestionAnswering`) is simpler.

    Args:
        model: Encoder, such as `AutoModel.from_pretrained(...)`.
        hidden_size: Width of the decoder; by default that of the model.
        attention: Form of the scores, as in `PointerAttention`.
        stop: Whether sequences end by a stop.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        >>> head = TokenPointer(BertModel(BertConfig(vocab_size=50, **sizes)))
        >>> tokens = torch.randint(50, (2, 9))
        >>> head.loss(torch.tensor([[3, 1, -1], [4, -1, -1]]), input_ids=tokens).shape
        torch.Size([])
    """

    def __init__(
        self, model: nn.Module, hidden_size: int | None = None, attention: Scoring = "additive", stop: bool = True
    ) -> None:
        super().__init__()
        features = getattr(getattr(model, "config", None), "hidden_size", None)
        if features is None:
            raise InputError(
                f"model must have config.hidden_size, as Hugging Face encoders do; got {type(model).__name__}"
            )
        hidden_size = features if hidden_size is None else hidden_size
        whole("hidden_size", hidden_size)
        self.model = model
        self.project = nn.Linear(features, hidden_size)
        self.initial = InitialState(hidden_size)
        self.decoder = PointerDecoder(hidden_size, attention=attention, stop=stop)

    def encode(self, *, candidates: Bool[Tensor, "batch tokens"] | None = None, **inputs: Any) -> PointerMemory:
        """Return the encoded tokens.

        Args:
            candidates: Tokens that may be chosen, such as the first token of each word or the separators of sentences,
                `(batch, tokens)`; by default all.
            inputs: Arguments of the model, such as `input_ids` and `attention_mask`; the decoder points at tokens of
                mask one only.
        """
        out = self.model(**inputs)
        hidden = getattr(out, "last_hidden_state", None)
        if not isinstance(hidden, Tensor) or hidden.dim() != 3:
            raise InputError(f"{type(self.model).__name__} returns no last_hidden_state (batch, tokens, features)")
        mask = inputs.get("attention_mask")
        real = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device) if mask is None else mask.bool()
        if real.shape != hidden.shape[:2] or not bool(real.any(1).all()):
            raise InputError(
                f"attention_mask must have shape {tuple(hidden.shape[:2])} and at least one token in each row, got "
                f"shape {tuple(real.shape)}"
            )
        valid = real
        if candidates is not None:
            fits = isinstance(candidates, Tensor) and candidates.dtype == torch.bool
            if not fits or candidates.shape != real.shape:
                is_tensor = isinstance(candidates, Tensor)
                given = f"{candidates.dtype} {tuple(candidates.shape)}" if is_tensor else type(candidates).__name__
                raise InputError(f"candidates must be a boolean tensor of shape {tuple(real.shape)}, got {given}")
            valid = real & candidates.to(real.device)
            if not bool(valid.any(1).all()):
                row = int((~valid.any(1)).nonzero()[0, 0])
                raise InputError(f"row {row} of the batch has no candidate among its tokens of mask one; give one")
        keys = self.project(hidden.to(self.project.weight.dtype))
        return PointerMemory(keys, keys, valid, self.initial(keys, real))

    def forward(
        self,
        targets: Int[Tensor, "batch *sequences steps"],
        *,
        candidates: Bool[Tensor, "batch tokens"] | None = None,
        **inputs: Any,
    ) -> Float[Tensor, "batch *sequences steps choices"]:
        """Return the scores of all tokens at each step, `(batch, ..., steps, tokens + 1)`, with the stop last.

        Args:
            targets: Positions of tokens, -1 for the stop and after it.
            candidates: Tokens that may be chosen, as in `encode`.
            inputs: Arguments of the model.
        """
        return self.decoder(self.encode(candidates=candidates, **inputs), targets)

    def log_prob(
        self,
        targets: Int[Tensor, "batch *sequences steps"],
        *,
        candidates: Bool[Tensor, "batch tokens"] | None = None,
        constraint: Constraint | None = None,
        **inputs: Any,
    ) -> Float[Tensor, "batch *sequences"]:
        """Return the log probability of each sequence, as `PointerNetwork.log_prob` does.

        Args:
            targets: Positions of tokens, -1 for the stop and after it.
            candidates: Tokens that may be chosen, as in `encode`.
            constraint: Choices that count; probabilities are normalized over them.
            inputs: Arguments of the model.
        """
        memory = self.encode(candidates=candidates, **inputs)
        return self.decoder.step_log_probs(memory, targets, constraint).sum(-1)

    def loss(
        self,
        targets: Int[Tensor, "batch steps"],
        *,
        candidates: Bool[Tensor, "batch tokens"] | None = None,
        constraint: Constraint | None = None,
        equivalent: Equivalent | None = None,
        **inputs: Any,
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of a step, in nats.

        Args:
            targets: Positions of tokens, each row with its stop, `(batch, steps)`.
            candidates: Tokens that may be chosen, as in `encode`.
            constraint: Choices that count, as in `PointerNetwork.loss`.
            equivalent: Sequences that mean the same, as in `PointerNetwork.loss`.
            inputs: Arguments of the model.
        """
        check_loss(self.decoder, targets, constraint, equivalent)
        memory = self.encode(candidates=candidates, **inputs)
        return pointer_loss(self.decoder, memory, targets, constraint, equivalent)

    def decode(
        self,
        strategy: Strategy = "greedy",
        width: int = 10,
        *,
        candidates: Bool[Tensor, "batch tokens"] | None = None,
        constraint: Constraint | None = None,
        max_steps: int | None = None,
        generator: torch.Generator | None = None,
        **inputs: Any,
    ) -> Decoding:
        """Return probable sequences of token positions, with the most probable first.

        Args:
            strategy: `"greedy"`, `"beam"` or `"sample"`.
            width: Number of hypotheses of the beam, or of samples.
            candidates: Tokens that may be chosen, as in `encode`.
            constraint: Choices that may follow, as in `PointerNetwork.decode`.
            max_steps: Largest number of choices, without the stop.
            generator: Random generator of the samples.
            inputs: Arguments of the model.
        """
        memory = self.encode(candidates=candidates, **inputs)
        return decode(self.decoder, memory, strategy, width, constraint, max_steps, generator)


_DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_TINY = {
    "vocab_size": 16, "intermediate_size": 16, "n_inner": 16, "ffn_dim": 16, "hidden_dim": 16, "head_dim": 8,
    "pad_token_id": 0, "max_window_layers": 0,
}  # fmt: skip
"""Sizes that do not change what a model attends to."""
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim")


@torch.no_grad()
def attention_masks(model: Any, length: int) -> list[Bool[Tensor, "length length"]]:
    """Return the mask of each layer of a Hugging Face model, as read from the attention that it computes.

    The result goes into `visible_inputs` and `routing_feasible`. A configuration stands for its model; it is built with
    few features, which does not change its masks.

    Args:
        model: Model with self-attention, or its configuration.
        length: Number of positions; a window shows only if the sequence is longer.

    Raises:
        InputError: If the model returns no attention weights of this length, such as recurrent models and
            encoder-decoders.

    Example:
        >>> from transformers import MistralConfig
        >>> masks = attention_masks(MistralConfig(num_hidden_layers=2, sliding_window=3), 5)
        >>> masks[0].long()
        tensor([[1, 0, 0, 0, 0],
                [1, 1, 0, 0, 0],
                [1, 1, 1, 0, 0],
                [0, 1, 1, 1, 0],
                [0, 0, 1, 1, 1]])
    """
    whole("length", length)
    hf = require("transformers", "hf")
    if isinstance(model, hf.PretrainedConfig):
        model = _tiny(hf, model)
    elif not isinstance(model, hf.PreTrainedModel):
        raise InputError(f"model must be a Hugging Face model or its configuration, got {type(model).__name__}")
    kind = type(model).__name__
    before = model.config._attn_implementation
    if model.dtype != torch.float32:  # attention that underflows would look like a mask
        model = copy.deepcopy(model).float()
    try:
        features = model.get_input_embeddings().weight
        x = torch.randn(1, length, features.shape[1], generator=torch.Generator().manual_seed(0)).to(features)
        model.set_attn_implementation("eager")  # other implementations return no weights
        with evaluating(model):
            found = model(inputs_embeds=x, output_attentions=True)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError, KeyError) as error:
        most = getattr(model.config, "max_position_embeddings", None)
        why = f"it has {most} positions" if isinstance(most, int) and most < length else f"{error}".splitlines()[0]
        raise InputError(f"{kind} can't be asked for its attention at length {length}: {why}") from None
    finally:
        model.set_attn_implementation(before)
    weights = list(getattr(found, "attentions", None) or ())
    layers = next((getattr(model.config, n) for n in _DEPTHS if hasattr(model.config, n)), len(weights))
    if len(weights) != layers or any(not _is_attention(w, length) for w in weights):
        raise InputError(
            f"{kind} has {layers} layers and attention weights ({length}, {length}) of "
            f"{sum(_is_attention(w, length) for w in weights)}; other layers move data too, so give masks by hand"
        )
    return [(w[0] > 0).any(0).cpu() for w in weights]


def _is_attention(weights: Any, length: int) -> bool:
    """Return whether weights are those of a softmax over all positions."""
    if not isinstance(weights, Tensor) or weights.shape[-2:] != (length, length):
        return False
    return bool((weights.sum(-1) - 1).abs().amax() < 1e-3)


def _tiny(hf: Any, config: Any) -> Any:
    """Return the model of a configuration with few features, and with one head if it can have one."""
    known = [n for n in ("num_attention_heads", "n_head", "num_heads") if hasattr(config, n)]
    if not known:
        raise InputError(f"{type(config).__name__} has no number of attention heads; give masks by hand, or a model")
    for heads in (1, getattr(config, known[0])):
        small = copy.deepcopy(config)
        sizes = {**_TINY, **dict.fromkeys(_WIDTHS, 8 * heads)}
        if heads == 1:
            sizes |= dict.fromkeys((*known, "num_key_value_heads", "num_kv_heads"), 1)
        for name, value in sizes.items():
            if isinstance(getattr(small, name, None), int):
                with contextlib.suppress(AttributeError):  # some sizes follow from others
                    setattr(small, name, value)
        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.manual_seed(0)
                return hf.AutoModel.from_config(small, attn_implementation="eager")
        except Exception as error:  # a model class may fail in any way on sizes that it was not made for
            why = f"{error}".splitlines()[0] if f"{error}" else type(error).__name__
    raise InputError(f"no small model can be made of {type(config).__name__} ({why}); give a model")
