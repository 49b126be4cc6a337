"""Sorted networks where a wrong answer would look right: shared passes, statistics, attributes, nested contexts."""

import threading
from collections import UserDict

import pytest
import torch
import torch.nn.functional as F
from sorted_nets import Attention, Block, Deep, FixedHeads, Recurrent, case, encoder
from torch import nn

from commutant import InputError
from commutant.parameters import AxisLabel, Factor, prefix, prefix_positions
from commutant.weights import EarlyExit, Menu, SortedModule, cost, sorted_loss

DEPTH, DEPTHS = {"depth": "blocks.*"}, Menu.product(depth=[1, 2, 4])


def cross_entropy(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1])


class Reversed(Deep):
    def forward(self, x):
        x = self.stem(x)
        for block in reversed(self.blocks):
            x = block(x)
        return self.head(self.norm(x))


class Looped(Deep):
    def forward(self, x):
        x = self.stem(x)
        for _ in range(2):
            for block in self.blocks:
                x = block(x)
        return self.head(self.norm(x))


class Jumping(Deep):
    """The head reads the outputs of all blocks."""

    def __init__(self):
        super().__init__()
        del self.norm

    def forward(self, x):
        x, found = self.stem(x), []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return self.head(torch.stack(found).amax(0))


class Overwriting(Deep):
    """The head changes the output of the last block in place."""

    def __init__(self):
        super().__init__()
        del self.norm

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.sub_(1.0))


class Pairs(Deep):
    """Blocks return tuples."""

    class Paired(Block):
        def forward(self, x, scale=1.0):
            return super().forward(x) * scale, scale

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(self.Paired(8, 16) for _ in range(4))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x))


class Keywords(Deep):
    def forward(self, x, scale=None, shift=None):
        x = self.stem(x) * (1.0 if scale is None else scale) + (0.0 if shift is None else shift)
        for block in self.blocks:
            x = block(x=x)
        return self.head(self.norm(x))


class InPlace(Deep):
    """Blocks write into what they read."""

    class Adding(Block):
        def forward(self, x):
            x = F.relu(x, inplace=True)
            return x + self.down(self.up(self.norm(x)).relu())

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(self.Adding(8, 16) for _ in range(4))


def deep_of(kind):
    torch.manual_seed(0)
    model, x = kind(), torch.randn(12, 6)
    return SortedModule(model, x, DEPTH, DEPTHS), x


def apart(nested, *args, **kwargs):
    found = {}
    for budget in nested.menu:
        with nested.budget(**budget):
            found[budget] = nested(*args, **kwargs)
    return found


@pytest.mark.parametrize(("kind", "shared"), [
    (Deep, True), (Pairs, True), (Jumping, True), (Overwriting, True), (Keywords, True), (InPlace, True),
    (Reversed, False), (Looped, False),
])  # fmt: skip
def test_shared_passes_are_separate_passes(kind, shared):
    nested, x = deep_of(kind)
    assert (nested.blocks is not None) == shared
    wanted = apart(nested, x)
    with nested.one_pass():
        for budget in reversed(nested.menu):
            nested.set_budget(budget)
            torch.testing.assert_close(nested(x), wanted[budget])
    nested.set_budget(None)
    y = torch.randint(0, 3, (12,))
    grads = []
    for loss in (sorted_loss(nested, (x, y), cross_entropy, mode="sum"),
                 sum(F.cross_entropy(v, y) for v in apart(nested, x).values()) / 3):  # fmt: skip
        nested.zero_grad()
        loss.backward()
        grads.append([p.grad.clone() for p in nested.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    if shared:
        found = EarlyExit(nested, 0.5)(x)
        for place, budget in enumerate(nested.menu):
            torch.testing.assert_close(found.logits[found.exits == place], wanted[budget][found.exits == place])
    else:
        with pytest.raises(InputError, match="one after another"):
            EarlyExit(nested, 0.5)


def test_passes_are_shared_only_if_nothing_has_changed():
    nested, x = deep_of(Keywords)
    scale = torch.tensor(2.0)

    def second(first, change, then):
        with nested.one_pass():
            nested.set_budget({"depth": 4})
            first()
            change()
            nested.set_budget({"depth": 2})
            found = then()
        with nested.budget(depth=2):
            torch.testing.assert_close(found, then())

    def nothing():
        pass

    second(lambda: nested(x, scale=scale), nothing, lambda: nested(x, shift=scale))
    y = x.clone()
    second(lambda: nested(y), lambda: y.add_(1), lambda: nested(y))

    def grow():
        with torch.no_grad():
            nested.module.blocks[0].up.weight.mul_(2)

    second(lambda: nested(x), grow, lambda: nested(x))


def test_a_teacher_without_gradients_does_not_take_those_of_its_students():
    nested, x = deep_of(Deep)

    def loss(net, batch):
        with torch.no_grad(), net.budget(depth=4):
            target = net(batch).softmax(-1)
        return F.cross_entropy(net(batch), target)

    sorted_loss(nested, x, loss, mode="sum").backward()
    assert all(
        p.grad is not None and bool(p.grad.any()) for p in (nested.module.stem.weight, nested.module.head.weight)
    )


class Normed(Deep):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)


def test_statistics_hold_in_shared_passes_and_end_with_the_weights():
    nested, x = deep_of(Normed)
    data = [torch.randn(32, 6) for _ in range(3)]
    nested.calibrate(data)
    nested.eval()
    wanted = apart(nested, x)
    with nested.one_pass():
        for budget in reversed(nested.menu):
            nested.set_budget(budget)
            assert torch.equal(nested(x), wanted[budget])
    with pytest.raises(InputError, match="statistics of its own"):
        EarlyExit(nested, 0.5)
    nested.double()
    nested.set_budget(nested.menu[0])
    torch.testing.assert_close(nested(x.double()).float(), wanted[nested.menu[0]])
    nested.float()
    nested.module.norm.train()  # running statistics of the budget are not touched
    nested(x)
    nested.eval()
    torch.testing.assert_close(nested(x), wanted[nested.menu[0]])
    nested.train()
    optimizer = torch.optim.SGD(nested.parameters(), 0.1)
    sorted_loss(nested, (x, torch.zeros(12, dtype=torch.long)), cross_entropy).backward()
    optimizer.step()
    nested.eval()
    for budget in (None, nested.menu[0]):
        nested.set_budget(budget)
        with pytest.warns(UserWarning, match="call calibrate"):
            nested(x)
    nested.calibrate(data)
    nested.module.load_state_dict(Normed().state_dict())
    with pytest.warns(UserWarning, match="call calibrate"):
        nested(x)


def test_frozen_statistics_in_training_are_those_of_the_budget():
    nested, x = deep_of(Normed)
    nested.calibrate([torch.randn(32, 6)])
    nested.eval()
    with nested.budget(depth=1):
        wanted = nested(x)
    nested.train()
    nested.module.norm.eval()
    with nested.budget(depth=1):
        torch.testing.assert_close(nested(x), wanted)


def test_unrelated_numbers_stay():
    class Counting(Attention):
        def __init__(self):
            super().__init__()
            self.classes, self.log_every = 4, 4

    nested = SortedModule(Counting(), torch.randn(2, 5, 24), {"heads": "auto"}, Menu.product(heads=[1, 2, 4]))
    small = nested.extract({"heads": 2})
    assert (small.heads, small.classes, small.log_every) == (2, 4, 4)


def test_what_the_example_does_not_show_is_refused():
    class Scaled(FixedHeads):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.full((24,), 1e-6))

        def forward(self, x):
            return x + self.gamma * (super().forward(x) - x)

    class Chosen(FixedHeads):
        def forward(self, x):
            return super().forward(x).argmax(-1)

    menu = Menu.product(heads=[2, 4])
    x = torch.randn(2, 5, 24)
    for model, example, message in (
        (Scaled(), x, "computes another function"),
        (FixedHeads(), x[:, :1], "does not depend on 'qkv.weight'"),
        (Chosen(), x, "select one, such as logits"),
    ):
        with pytest.raises(InputError, match=message):
            SortedModule(model, example, {"heads": "auto"}, menu)
    with pytest.raises(InputError, match="spectral norm"):
        SortedModule(
            nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 12)), nn.ReLU(), nn.Linear(12, 2)),
            torch.randn(3, 6), {"width": "auto"}, Menu.product(width=[6, 12]),
        )  # fmt: skip
    with pytest.raises(InputError, match="in two dimensions"):
        SortedModule(Deep(), x[0, :, :6], {**DEPTH, "depth2": "blocks.*"}, Menu.product(depth=[1], depth2=[2]))
    with pytest.raises(InputError, match="meta device"):
        SortedModule(Deep().to("meta"), x[0, :, :6], DEPTH, DEPTHS)


def test_nested_contexts_run_what_the_inner_one_says():
    torch.manual_seed(0)
    model, x = Deep(), torch.randn(7, 6)
    menu = Menu.product(depth=[1, 4], width=[4, 16])
    nested = SortedModule(model, x, {**DEPTH, "width": "blocks.*.up"}, menu)
    wanted, whole, full = apart(nested, x), nested.count(None), model(x)
    for outer in menu:
        with nested.applied(outer) as sub:
            for inner in menu:
                with nested.budget(**inner):
                    assert torch.equal(nested(x), wanted[inner])
                assert torch.equal(nested.extract(inner)(x), wanted[inner])
            assert nested.count(None) == whole
            with nested.applied(None):
                assert torch.equal(model(x), full)
            assert torch.equal(sub(x), wanted[outer])
    assert torch.equal(model(x), full)


def test_threads_take_turns():
    nested, x = deep_of(Deep)
    wanted, wrong = apart(nested, x), []

    def work(budget):
        for _ in range(40):
            with nested.applied(budget) as module, torch.no_grad():
                if not torch.equal(module(x), wanted[budget]):
                    wrong.append(budget)
            with nested.budget(**budget), torch.no_grad():
                if not torch.equal(nested(x), wanted[budget]):
                    wrong.append(budget)

    threads = [threading.Thread(target=work, args=(budget,)) for budget in nested.menu]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(nested.module.blocks) == 4


def test_products_of_recurrences_and_of_attention_are_counted():
    lstm = Recurrent(nn.LSTM)
    nested = SortedModule(lstm, torch.randn(2, 7, 5), {"width": "auto"}, Menu.product(width=[12]))
    assert cost(nested, nested.menu[0]).macs == 2 * 7 * (4 * 12 * (5 + 12) + 4 * 12 * 24 + 12 * 3)
    nested = SortedModule(encoder().eval(), torch.randn(2, 5, 16), {"width": "auto"}, Menu.product(width=[32]))
    assert cost(nested, nested.menu[0]).macs == 2 * (5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 5 * 5 * 16)


def test_extracts_learn_as_the_full_network_would():
    model, x, _ = case("gru")
    model.out.weight.requires_grad_(False)
    nested = SortedModule(model, x, {"width": "auto"}, Menu.product(width=[0.5, 1.0]))
    with torch.no_grad():
        small = nested.extract({"width": 0.5})
    assert [k for k, p in small.named_parameters() if not p.requires_grad] == ["out.weight"]
    with torch.inference_mode():
        nested.extract({"width": 0.5})(x)
    with nested.budget(width=0.5):
        nested(x).sum().backward()


def test_replaced_modules_are_noticed():
    nested, x = deep_of(Deep)
    with nested.budget(depth=2):
        nested(x)
    nested.module.blocks[0] = Block(8, 16)
    with pytest.raises(InputError, match="build a new SortedModule"), nested.budget(depth=2):
        nested(x)


@pytest.mark.usefixtures("unchecked")
def test_prefixes_are_checked_and_their_positions_belong_to_the_caller():
    label = AxisLabel(((Factor(3), Factor(4, "h")),))
    first = prefix_positions(label, {"h": 2})
    first += 1
    assert prefix_positions(label, {"h": 2}).tolist() == [0, 1, 4, 5, 8, 9]
    for width in (0, -1, 5, 1.5):
        with pytest.raises(InputError, match="from 1 to 4"):
            prefix(torch.randn(12), [label], {"h": width})


def test_batches_of_any_form_are_split():
    nested, x = deep_of(Deep)
    y, seen = torch.arange(12), []

    def loss(net, batch):
        inputs, target = batch
        seen.append((type(inputs), inputs["x"], target))
        return net(inputs["x"]).mean()

    sorted_loss(nested, (UserDict({"x": x}), y), loss, samples=3)
    assert [kind for kind, _, _ in seen] == [UserDict] * 3
    assert torch.equal(torch.cat([a for _, a, _ in seen]), x)
    assert torch.equal(torch.cat([b for _, _, b in seen]), y)


@pytest.mark.usefixtures("unchecked")
def test_wrong_kinds_of_arguments_get_a_sentence():
    nested, x = deep_of(Deep)
    from commutant.weights import pareto, segment_spec, select, sort_channels

    for call in (
        lambda: EarlyExit("x", 0.5), lambda: cost("x", {}), lambda: select("x", max_params=3),
        lambda: pareto("x", len), lambda: segment_spec("x"), lambda: sorted_loss(nested, x, "x"),
        lambda: EarlyExit(nested, 0.5)(), lambda: nested.draw("abc"), lambda: nested.draw([float("inf"), 1, 1]),
        lambda: nested.set_budget({1: 2, "a": 3}), lambda: Menu.product(width=[[1], [2]]),
        lambda: SortedModule(nested.module, x, DEPTH, DEPTHS, seed="x"),
        lambda: SortedModule(torch.jit.trace(Deep(), x), x, DEPTH, DEPTHS),
        lambda: sort_channels(nested.module, nested.spec, "taylor", batches=[x], loss_fn="x"),
        lambda: SortedModule(nested.module, x, {"cls": "auto"}, Menu.product(cls=[0.5, 1.0]), spec="x"),
    ):  # fmt: skip
        with pytest.raises(InputError):
            call()
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    tiny = SortedModule(model, x, {"self": "auto"}, Menu.product(self=[1e-12, 1.0]))
    with tiny.budget(self=1e-12):
        assert tiny(x).shape == (12, 2)
    assert tiny.extract(tiny.menu[0])[0].out_features == 1
    tiny.module.aux = tiny.module(x)
    with pytest.raises(InputError, match="can't be copied"):
        tiny.extract(tiny.menu[0])
