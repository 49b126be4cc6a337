"""Base class of the recurrent layers that replace `torch.nn.GRU` and train in parallel over time."""

from __future__ import annotations

import math
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .._checks import one_of, positive, whole
from .._errors import InputError
from ..kernels import Fused, fused_method
from ._exported import is_exporting, solve_operator
from ._find import METHODS, SolveInfo, widened, without_autocast
from ._gated import GATED_CELLS, GatedCell, read_info, solve_gated
from ._ragged import Ragged

State: TypeAlias = Tensor | tuple[Tensor, ...]


class ParallelRecurrence(nn.Module):
    """Base class of the recurrent layers: the signature of `torch.nn.GRU`, solved in parallel over time.

    One matrix product over all steps computes the inputs of all gates. The recurrence is diagonal, so its Jacobian is
    diagonal too (or couples the slots of one channel), and it is solved as in `solve_recurrence`. `info` holds the
    report of each solve of the last forward pass. `fallbacks` counts the solves that needed a second method.

    Args:
        input_size: Number of features of the input.
        hidden_size: Number of channels of the state.
        num_layers: Number of stacked layers.
        bias: Whether the gates have a bias.
        batch_first: Whether x is `(batch, time, features)` instead of `(time, batch, features)`.
        dropout: Dropout probability between layers.
        bidirectional: Whether to add a recurrence that runs backward in time; its features are appended.
        num_heads: Number of diagonal blocks of each gate's input map; must divide the input and hidden sizes.
        a_max: Bound to which recurrent weights are clipped, or None. For ParaGRU and ParaLSTM the paper uses 0.5 for
            language, 0.9 for synthetic tasks and None for parity.
        method: Solver, see `solve_recurrence`; keep `"auto"` unless you compare methods.
        device: Device of the parameters.
        dtype: Data type of the parameters.
        proj_size: Unsupported, present because `nn.LSTM` has it; must be 0.

    Raises:
        InputError: For sizes that do not fit, or a state of the wrong shape.

    """

    cell_name: ClassVar[str]
    state_slots: ClassVar[tuple[int, ...]] = (0,)
    """Slots of the cell's state, in the order in which the layer takes and returns them."""
    output_gates: ClassVar[int] = 0
    output_weights: ClassVar[int] = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        num_heads: int = 1,
        a_max: float | None = None,
        method: str = "auto",
        device: Any = None,
        dtype: Any = None,
        *,
        proj_size: int = 0,
    ) -> None:
        super().__init__()
        if isinstance(num_heads, str | torch.device | torch.dtype):  # where nn.GRU takes device and dtype
            raise InputError(f"num_heads must be a whole number, got {num_heads!r}; give device and dtype by name")
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}
        for name, value in sizes.items():
            whole(name, value)
        if proj_size:
            raise InputError(
                f"{type(self).__name__} does not project its state, got proj_size={proj_size}; use an nn.Linear instead"
            )
        if not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
            raise InputError(f"dropout must be a probability, got {dropout!r}")
        one_of("method", method, METHODS)
        if device is not None and torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"device={str(device)!r} was given, but torch finds no CUDA device; use device='cpu'")
        if a_max is not None:
            positive("a_max", a_max)
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, float(dropout), bidirectional
        self.num_heads, self.a_max, self.method = num_heads, a_max, method
        self._infos: tuple[SolveInfo | Fused, ...] = ()
        self.fallbacks = 0
        cell = self.cell
        directions = 2 if bidirectional else 1
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * directions
            if width % num_heads or hidden_size % num_heads:
                raise InputError(f"num_heads={num_heads} must divide the widths {width} and {hidden_size}")
            for suffix in self._suffixes(layer):
                gates, weights = cell.gates + self.output_gates, cell.recurrent + self.output_weights
                new: dict[str, tuple[int, ...]] = {
                    "weight_ih": (gates * hidden_size, width // num_heads),
                    "weight_hh": (weights, hidden_size),
                }
                if bias:
                    new["bias"] = (gates * hidden_size,)
                for name, shape in new.items():
                    self.register_parameter(name + suffix, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    @property
    def cell(self) -> GatedCell:
        """Return the cell, which holds the step and its derivative."""
        return GATED_CELLS[self.cell_name]

    @property
    def info(self) -> tuple[SolveInfo, ...]:
        """Return the report of each solve of the last forward pass; on a GPU this waits for the device."""
        return tuple(read_info(info) for info in self._infos)

    def reset_parameters(self) -> None:
        """Initialize input maps Kaiming uniform, recurrent weights Xavier normal and biases zero (section 5.2)."""
        for name, parameter in self.named_parameters():
            self.reset_parameter(name, parameter)

    def reset_parameter(self, name: str, parameter: Tensor) -> None:
        """Initialize one parameter.

        Args:
            name: Name of the parameter, which determines its distribution.
            parameter: Parameter to initialize in place.
        """
        if name.startswith("weight_ih"):
            nn.init.kaiming_uniform_(parameter)
        elif name.startswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.numel():
            nn.init.normal_(parameter, std=math.sqrt(2 / sum(parameter.shape)))
            if self.a_max is not None:
                with torch.no_grad():
                    parameter.clamp_(-self.a_max, self.a_max)

    def flatten_parameters(self) -> None:
        """Do nothing: code written for `torch.nn.GRU` calls it."""

    def forward(
        self,
        input: Tensor | PackedSequence | None = None,
        hx: State | None = None,
        *,
        x: Tensor | PackedSequence | None = None,
        h_0: State | None = None,
        cu_seqlens: Tensor | None = None,
        process_group: Any = None,
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run the layers over whole sequences.

        Args:
            input: Sequences `(time, batch, input_size)`, or `(batch, time, input_size)` with `batch_first`; one
                sequence `(time, input_size)`; a `PackedSequence`; or, with `cu_seqlens`, concatenated sequences
                `(total, input_size)`.
            hx: Initial state in the layout of `torch.nn.GRU` (or `nn.LSTM`), each part
                `(layers * directions, batch, hidden_size)`; zero when absent.
            x: Another name of `input`.
            h_0: Another name of `hx`.
            cu_seqlens: Offsets at which the sequences start and end, `(sequences + 1,)`, from 0 to total.
            process_group: Process group over which time is split, see `solve_recurrence`. x holds the steps of this
                rank, and h_0 is read on rank 0. The final state is that of this rank's last step.

        Returns:
            The output in the layout of x, with `hidden_size * directions` features, and the final state in the layout
            of h_0.

        Raises:
            InputError: For an input or state of the wrong shape or dtype, or a split of time that is not supported.
        """
        if process_group is not None and (self.bidirectional or self.output_gates or cu_seqlens is not None):
            raise InputError(
                "process_group needs a unidirectional layer other than SRU and sequences of one length; leave it out"
            )
        x, h_0 = only_one(input, x, "input", "x"), only_one(hx, h_0)
        if x is None:
            raise InputError(f"{type(self).__name__} was called without input; pass a tensor or a PackedSequence")
        ragged = Ragged.of(x, cu_seqlens, self.batch_first, self.input_size)
        hidden = ragged.padded
        states = self._initial(h_0, hidden, ragged.batched)
        finals: list[Tensor] = []
        infos: list[SolveInfo | Fused] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes(layer):
                backwards = suffix.endswith("reverse")
                source = ragged.flip(hidden) if backwards else hidden
                output, state, info = self._run(source, states[len(finals)], suffix, process_group)
                outputs.append(ragged.flip(output) if backwards else output)
                finals.append(ragged.last(state, states[len(finals)]))
                infos.append(info)
            hidden = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if self.dropout and layer + 1 < self.num_layers:
                hidden = nn.functional.dropout(hidden, self.dropout, self.training)
        self._infos = tuple(infos)
        self.fallbacks += sum(isinstance(info, SolveInfo) and bool(info.fell_back) for info in infos)
        return ragged.restore(hidden), self._export(finals, ragged.batched)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run one step, for decoding with the same weights.

        Args:
            x: Input of the step, `(batch, input_size)`.
            state: State returned by `forward` or by the last `step`; zero when absent.

        Returns:
            The output `(batch, hidden_size)` and the next state.

        Raises:
            InputError: For a bidirectional layer, whose output depends on future steps.
        """
        if self.bidirectional:
            raise InputError("a bidirectional recurrence has no step, because its output depends on future steps")
        if x.dim() != 2 or x.shape[1] != self.input_size:
            raise InputError(f"x must have shape (batch, {self.input_size}), got {tuple(x.shape)}")
        states = self._initial(state, x[None], True)
        finals, hidden = [], x
        for layer, before in enumerate(states):
            pre, weights = self._gates(hidden, f"_l{layer}")
            cell, dtype = self.cell, pre.dtype
            with without_autocast(x.device.type):  # at least float32, as for whole sequences
                before, pre, weights = widened(before), widened(pre), widened(weights)
                after = cell.step(before, (pre[..., : cell.gates, :],), (weights[: cell.recurrent],))
                hidden = self._output(after, before, pre[..., cell.gates :, :], weights[cell.recurrent :]).to(dtype)
            finals.append(after.to(dtype))
        return hidden, self._export(finals, True)

    def _run(self, x: Tensor, h_0: Tensor, suffix: str, process_group: Any) -> tuple[Tensor, Tensor, SolveInfo | Fused]:
        cell = self.cell
        pre, weights = self._gates(x, suffix)
        own = pre[..., : cell.gates, :] if self.output_gates else pre
        recurrent = weights[: cell.recurrent]
        h_0 = h_0.to(pre.dtype)
        info: SolveInfo | Fused
        if (
            process_group is None
            and (is_exporting() or own.is_meta)
            and fused_method(self.cell_name, own, self.method) is None
        ):
            states = solve_operator(own, recurrent, h_0, self.cell_name, self.method)
            info = SolveInfo("operator", 0, 0.0, 0.0, True)
        else:
            states, info = solve_gated(self.cell_name, own, h_0, recurrent, self.method, process_group)
        # concatenate before slicing: slicing `states[:-1]` would specialize an exported graph on the number of steps
        before = torch.cat([h_0[None].to(states.dtype), states])[:-1] if self.output_gates else states
        return self._output(states, before, pre[..., cell.gates :, :], weights[cell.recurrent :]), states, info

    def _gates(self, x: Tensor, suffix: str) -> tuple[Tensor, Tensor]:
        """Return the pre-activations `(*lanes, gates, hidden_size)` and the clipped recurrent weights."""
        weight, recurrent = getattr(self, "weight_ih" + suffix), getattr(self, "weight_hh" + suffix)
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise InputError(f"x is {x.dtype} but the layer's parameters are {weight.dtype}; convert one of them")
        bias = getattr(self, "bias" + suffix) if self.bias else None
        if self.num_heads == 1:
            pre = nn.functional.linear(x, weight, bias)
        else:
            heads = weight.view(-1, self.num_heads, self.hidden_size // self.num_heads, weight.shape[1])
            pre = torch.einsum("...hi,ghoi->...gho", x.unflatten(-1, (self.num_heads, -1)), heads).flatten(-3)
            pre = pre if bias is None else pre + bias.to(pre.dtype)  # autocast leaves the bias wider
        pre = pre.unflatten(-1, (-1, self.hidden_size))
        if self.a_max is not None:
            recurrent = clip_weights(recurrent, self.a_max)
        return pre, recurrent

    def _output(self, states: Tensor, before: Tensor, pre: Tensor, weights: Tensor) -> Tensor:
        return states if self.cell.slots == 1 else states[..., self.cell.output, :]

    def _initial(self, h_0: State | None, x: Tensor, batched: bool) -> list[Tensor]:
        count, batch = self.num_layers * (2 if self.bidirectional else 1), x.shape[1]
        if h_0 is None:
            return [self.cell.initial(batch, self.hidden_size, x)] * count
        parts = tuple(h_0) if isinstance(h_0, tuple | list) else (h_0,)
        if not all(isinstance(part, Tensor) for part in parts):
            raise InputError(f"the state must consist of tensors, got {[type(part).__name__ for part in parts]}")
        expected = (count, batch, self.hidden_size) if batched else (count, self.hidden_size)
        if len(parts) != len(self.state_slots) or any(tuple(part.shape) != expected for part in parts):
            raise InputError(
                f"the state must be {len(self.state_slots)} tensor(s) of shape {expected}, "
                f"got {[tuple(part.shape) for part in parts]}"
            )
        parts = parts if batched else tuple(part.unsqueeze(1) for part in parts)
        if len(parts) == 1:
            return list(parts[0].unbind(0))
        ordered = [parts[self.state_slots.index(slot)] for slot in range(len(parts))]
        return list(torch.stack(ordered, 2).unbind(0))

    def _export(self, finals: list[Tensor], batched: bool) -> State:
        stacked = torch.stack(finals) if batched else torch.stack(finals).squeeze(1)
        if self.cell.slots == 1:
            return stacked
        return tuple(stacked[..., slot, :] for slot in self.state_slots)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}"] + [f"_l{layer}_reverse"] * self.bidirectional

    def extra_repr(self) -> str:
        said = [f"{self.input_size}, {self.hidden_size}"]
        defaults: dict[str, Any] = {
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
        }
        defaults |= {"num_heads": 1, "a_max": None, "method": "auto"}
        said += [f"{k}={getattr(self, k)}" for k, default in defaults.items() if getattr(self, k) != default]
        return ", ".join(said)


def only_one(first: Any, second: Any, name: str = "hx", other: str = "h_0") -> Any:
    """Return the value of an argument that has two names."""
    if first is not None and second is not None:
        raise InputError(f"{name} and {other} are two names of one argument; pass only one of them")
    return second if first is None else first


class _Clip(torch.autograd.Function):
    """Clipping to [-limit, limit] that drops only the gradients that would move a weight further outside."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, limit: float) -> Tensor:
        return weight.clamp(-limit, limit)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.limit = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        outward = (weight.abs() > ctx.limit) & (weight * gradient < 0)
        return gradient.masked_fill(outward, 0), None


def clip_weights(weight: Tensor, limit: float) -> Tensor:
    """Clip recurrent weights to [-limit, limit]; a weight outside can still train back inside."""
    if torch.jit.is_tracing():  # TorchScript cannot save a Python function
        return weight.clamp(-limit, limit)
    return _Clip.apply(weight, limit)
