"""Conversion between the input layouts of recurrent layers and padded, time-first batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .._errors import InputError


@dataclass
class Ragged:
    """Batch of sequences of different lengths, padded at the end."""

    padded: Tensor
    """Padded sequences, `(time, batch, features)`."""
    lengths: Tensor | None
    """Length of each sequence, `(batch,)`, or None when all have the full length."""
    restore: Callable[[Tensor], Tensor | PackedSequence]
    """Function from padded outputs to the layout of the input."""
    batched: bool = True

    @classmethod
    def of(cls, x: Tensor | PackedSequence, cu_seqlens: Tensor | None, batch_first: bool, features: int) -> Ragged:
        """Convert any layout that a recurrent layer takes."""
        data = x.data if isinstance(x, PackedSequence) else x
        if not isinstance(data, Tensor) or not data.is_floating_point():
            raise InputError(
                f"x must be a floating point tensor or PackedSequence, got {getattr(data, 'dtype', type(x))}"
            )
        if data.shape[-1:] != (features,):
            raise InputError(f"x must have {features} features, got shape {tuple(data.shape)}")
        if isinstance(x, PackedSequence):
            if cu_seqlens is not None:
                raise InputError("x is a PackedSequence, which holds its own lengths; leave cu_seqlens out")
            return cls._packed(x)
        if cu_seqlens is not None:
            return cls._concatenated(x, cu_seqlens)
        if x.dim() == 2:
            return cls(x.unsqueeze(1), None, lambda y: y.squeeze(1), batched=False)
        if x.dim() != 3:
            raise InputError(f"x must have 3 axes, or 2 axes for one sequence, got shape {tuple(x.shape)}")
        if not batch_first:
            return cls(x, None, lambda y: y)
        return cls(x.transpose(0, 1).contiguous(), None, lambda y: y.transpose(0, 1))

    @classmethod
    def _packed(cls, x: PackedSequence) -> Ragged:
        padded, lengths = pad_packed_sequence(x)

        def restore(y: Tensor) -> PackedSequence:
            order = slice(None) if x.sorted_indices is None else x.sorted_indices
            packed = pack_padded_sequence(y[:, order], lengths[order.cpu() if isinstance(order, Tensor) else order])
            return PackedSequence(packed.data, x.batch_sizes, x.sorted_indices, x.unsorted_indices)

        return cls(padded, lengths.to(padded.device), restore)

    @classmethod
    def _concatenated(cls, x: Tensor, cu_seqlens: Tensor) -> Ragged:
        if x.dim() != 2:
            raise InputError(f"x must be (total, features) with cu_seqlens, got shape {tuple(x.shape)}")
        if not isinstance(cu_seqlens, Tensor):
            raise InputError(f"cu_seqlens must be a tensor of integers, got {type(cu_seqlens).__name__}")
        if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 1 or cu_seqlens.is_floating_point():
            raise InputError(
                f"cu_seqlens must be integers of shape (sequences + 1,), got {cu_seqlens.dtype} "
                f"{tuple(cu_seqlens.shape)}"
            )
        lengths = cu_seqlens.diff().to(x.device).long()
        if int(cu_seqlens[0]) != 0 or int(cu_seqlens[-1]) != x.shape[0] or bool((lengths < 0).any()):
            raise InputError(f"cu_seqlens must rise from 0 to {x.shape[0]}, got {cu_seqlens.tolist()}")
        longest = int(lengths.max()) if lengths.numel() else 0
        sequence = torch.repeat_interleave(torch.arange(lengths.numel(), device=x.device), lengths)
        time = torch.arange(x.shape[0], device=x.device) - cu_seqlens.to(x.device)[:-1].long()[sequence]
        padded = x.new_zeros(longest, lengths.numel(), x.shape[1]).index_put((time, sequence), x)
        return cls(padded, lengths, lambda y: y[time, sequence])

    def flip(self, x: Tensor) -> Tensor:
        """Reverse each sequence within its own length."""
        if self.lengths is None:
            return x.flip(0)
        time = torch.arange(x.shape[0], device=x.device)[:, None]
        index = torch.where(time < self.lengths, self.lengths - 1 - time, time)
        return x.gather(0, index[:, :, None].expand_as(x))

    def last(self, states: Tensor, initial: Tensor) -> Tensor:
        """Return the state after the last step of each sequence, or the initial state of an empty sequence."""
        if states.shape[0] == 0:
            return initial
        if self.lengths is None:
            return states[-1]
        found = states[(self.lengths - 1).clamp(min=0), torch.arange(states.shape[1], device=states.device)]
        empty = (self.lengths == 0).view(-1, *[1] * (found.dim() - 1))
        return torch.where(empty, initial.to(found.dtype), found)
