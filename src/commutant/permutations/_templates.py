"""Algorithms as templates: local rules on bits, each a training example, executed exactly by the trained predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._errors import InputError
from ._tangent_kernel import PermutationNTK, need_whole

_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Template:
    """When these bits have these values, write these bits.

    Args:
        when: values of named bits.
        then: names of the bits that the next state has set.
    """

    when: Mapping[str, int]
    then: Sequence[str]


class TemplateProgram:
    """A synchronous program of local rules, run by the infinite-width predictor trained on one example a template.

    Every template is an orthonormal training input whose image are the bits that it sets. A state is encoded as the
    normalised indicator of the templates that match it; an output is $\\mu_1$ times hits plus $\\mu_0$ times misses,
    and is one when above 1e-10. A bit that no matching template sets is zero in the next state.

    Args:
        bits: names of all bits of a state.
        templates: the rules.

    Raises:
        InputError: for unknown bits or no template; from `run`, where templates that set the same bit and do not match
            outweigh one that does.

    Example:
        >>> swap = TemplateProgram(["a", "b"], [Template({"a": 1}, ["b"]), Template({"b": 1}, ["a"])])
        >>> swap.step({"a": 1, "b": 0})
        {'a': 0, 'b': 1}
    """

    def __init__(self, bits: Sequence[str], templates: Sequence[Template]) -> None:
        if not isinstance(bits, Sequence) or not isinstance(templates, Sequence):
            raise InputError(f"bits and templates are lists, got {type(bits).__name__}, {type(templates).__name__}")
        self.bits, self.templates = tuple(bits), tuple(templates)
        for template in self.templates:
            if not isinstance(template, Template):
                raise InputError(f"templates are Template objects, got {type(template).__name__}")
            if not isinstance(template.when, Mapping) or isinstance(template.then, str):
                raise InputError(
                    f"a Template maps names of bits to values and lists those that it sets, got {template}"
                )
        if not self.templates or len(set(self.bits)) != len(self.bits):
            raise InputError(
                f"a program has templates and bits of different names, got {len(self.templates)} templates"
            )
        at = {bit: i for i, bit in enumerate(self.bits)}
        unknown = {bit for t in self.templates for bit in (*t.when, *t.then) if bit not in at}
        if unknown:
            raise InputError(f"templates name unknown bits: {', '.join(sorted(unknown))}")
        wrong = [value for t in self.templates for value in t.when.values() if value not in (0, 1)]
        if wrong:
            raise InputError(f"templates compare bits with 0 or 1, got {wrong[0]!r}")
        self._law = PermutationNTK(len(self.templates))
        self._care = torch.zeros(len(self.templates), len(self.bits), dtype=torch.bool)
        self._value = torch.zeros_like(self._care)
        self._image = torch.zeros(len(self.templates), len(self.bits), dtype=torch.float64)
        for row, template in enumerate(self.templates):
            for bit, value in template.when.items():
                self._care[row, at[bit]], self._value[row, at[bit]] = True, bool(value)
            for bit in template.then:
                self._image[row, at[bit]] = 1.0

    def run(self, states: Tensor, steps: int) -> Tensor:
        """The states after so many steps, `(batch, bits)` of 0 and 1, all at once."""
        if not isinstance(states, Tensor):
            raise InputError(f"states are a tensor (batch, {len(self.bits)}), got {type(states).__name__}")
        need_whole("steps", steps, 0)
        if states.ndim != 2 or states.shape[1] != len(self.bits) or bool(((states != 0) & (states != 1)).any()):
            raise InputError(f"states are binary, shape (batch, {len(self.bits)}), got {tuple(states.shape)}")
        state = states.bool()
        for _ in range(steps):
            matches = ~((state[:, None] ^ self._value) & self._care).any(-1)
            hits = matches.double() @ self._image
            count = matches.sum(1)
            table = [self._means(n) for n in range(int(count.max()) + 1)] if len(count) else [(0.0, 0.0)]
            means = torch.tensor(table, dtype=torch.float64)[count]
            misses = self._image.sum(0) - hits
            state = means[:, :1] * hits + means[:, 1:] * misses > _TOLERANCE
            lost = (hits > 0) & ~state
            if bool(lost.any()):
                bit = self.bits[int(lost.any(0).nonzero()[0])]
                raise InputError(
                    f"bit {bit} is set by a template, but outweighed by the others that set it and do not match: so "
                    "many rules for one bit can't be executed; split it"
                )
        return state.to(torch.uint8)

    def step(self, state: Mapping[str, int]) -> dict[str, int]:
        """One step of one state, by names."""
        if not isinstance(state, Mapping):
            raise InputError(f"a state maps the names of bits to 0 and 1, got {type(state).__name__}")
        missing = set(self.bits) - set(state)
        if missing:
            raise InputError(f"the state lacks the bits {', '.join(sorted(missing))}")
        unknown = set(state) - set(self.bits)
        if unknown:
            raise InputError(f"the state has the unknown bits {', '.join(sorted(map(str, unknown)))}")
        wrong = next((bit for bit in self.bits if state[bit] not in (0, 1)), None)
        if wrong is not None:
            raise InputError(f"bits are 0 or 1, got {wrong} = {state[wrong]!r}")
        row = torch.tensor([[int(state[bit]) for bit in self.bits]])
        return dict(zip(self.bits, self.run(row, 1)[0].tolist(), strict=True))

    def _means(self, n: int) -> tuple[float, float]:
        if n == 0:
            return 0.0, 0.0
        one, zero = self._law.mean(n)
        return one, 0.0 if n == self._law.k else zero


def addition(bits: int) -> TemplateProgram:
    """Binary addition of p and q: after 2 m steps p holds the sum modulo $2^m$, and `overflow` its top carry.

    Bits `p0 ... ` and `q0 ...`, the least significant first. Each step moves what does not collide from p and q to p,
    and sends a carry where both are set to the next place of q.

    Example:
        >>> program = addition(3)
        >>> state = dict.fromkeys(program.bits, 0) | {"p0": 1, "p1": 1, "q0": 1}  # 3 + 1
        >>> for _ in range(6):
        ...     state = program.step(state)
        >>> [state[f"p{i}"] for i in range(3)]
        [0, 0, 1]
    """
    need_whole("the number of bits", bits)
    rules = []
    for i in range(bits):
        p, q = f"p{i}", f"q{i}"
        carry = f"q{i + 1}" if i + 1 < bits else "overflow"
        rules += [Template({p: 0, q: 1}, [p]), Template({p: 1, q: 0}, [p]), Template({p: 1, q: 1}, [carry])]
    rules.append(Template({"overflow": 1}, ["overflow"]))
    names = [f"{letter}{i}" for letter in "pq" for i in range(bits)]
    return TemplateProgram([*names, "overflow"], rules)


def multiplication(bits: int) -> TemplateProgram:
    """Binary multiplication of p and q: after m (2 m + 1) steps r holds the product, of 2 m bits.

    Bits `p0 ... ` (2 m of them, the upper half zero) and `q0 ...`, the least significant first; `t0`, which starts the
    clock, must be set. Once a round of the clock p is added to r where `q0` is set, carries running through c, while p
    moves up and q down by a place.

    Example:
        >>> program = multiplication(2)
        >>> state = dict.fromkeys(program.bits, 0) | {"t0": 1, "p0": 1, "p1": 1, "q1": 1}  # 3 * 2
        >>> for _ in range(10):
        ...     state = program.step(state)
        >>> [state[f"r{i}"] for i in range(4)]
        [0, 1, 1, 0]
    """
    need_whole("the number of bits", bits)
    wide, rules = 2 * bits, []
    for i in range(wide):
        r, c, p = f"r{i}", f"c{i}", f"p{i}"
        carry, above = ([f"c{i + 1}"], [f"p{i + 1}"]) if i + 1 < wide else ([], [])
        rules += [Template({r: 0, c: 1}, [r]), Template({r: 1, c: 0}, [r]), Template({r: 1, c: 1}, carry)]
        rules += [Template({"t0": 1, "q0": 1, p: 1}, [c])]
        rules += [Template({"t0": 0, p: 1}, [p]), Template({"t0": 1, p: 1}, above)]
    for j in range(bits):
        below = [f"q{j - 1}"] if j else []
        rules += [Template({"t0": 0, f"q{j}": 1}, [f"q{j}"]), Template({"t0": 1, f"q{j}": 1}, below)]
    rules += [Template({f"t{k}": 1}, [f"t{(k + 1) % (wide + 1)}"]) for k in range(wide + 1)]
    names = [
        f"{letter}{i}" for letter, count in (("p", wide), ("q", bits), ("r", wide), ("c", wide)) for i in range(count)
    ]
    return TemplateProgram([*names, *(f"t{k}" for k in range(wide + 1))], rules)
