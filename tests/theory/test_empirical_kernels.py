"""Empirical tangent kernels: the model is left unchanged, and operations without batching rules work."""

import pytest
import torch
from torch import nn

from commutant._errors import InputError
from commutant.theory import empirical_ntk, infinite_width, ntk_vector_product


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TwoNames(nn.Module):
    """Network that holds one layer under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second, self.last = self.first, nn.Linear(4, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Tied(TwoNames):
    """Network of two layers that share a weight."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight


class Keeping(TwoNames):
    """Network that keeps its values, counts its calls and changes a buffer."""

    def __init__(self):
        super().__init__()
        self.last_seen, self.calls = None, 0
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.last_seen, self.calls = x, self.calls + 1
        self.mean.add_(1.0)
        return super().forward(x)


def parametrized():
    net = TwoNames()
    nn.utils.parametrize.register_parametrization(net.first, "weight", nn.Tanh())
    return net


KINDS = {
    "a module with two names": TwoNames,
    "a module in a row twice": lambda: (lambda a: nn.Sequential(a, nn.Tanh(), a, nn.Linear(4, 2)))(nn.Linear(4, 4)),
    "tied weights": Tied,
    "a module that keeps values": Keeping,
    "a shared parametrized module": parametrized,
    "a shared convolution": lambda: (
        lambda a: nn.Sequential(nn.Unflatten(1, (1, 4)), a, nn.Tanh(), a, nn.Flatten(), nn.Linear(4, 2))
    )(nn.Conv1d(1, 1, 3, padding=1)),
}


def jacobian(model, x):
    """Return the Jacobian by autograd, row by row and output by output."""
    own = [p for p in model.parameters() if p.requires_grad]
    rows = [[torch.autograd.grad(out, own, retain_graph=True) for out in model(row[None]).flatten()] for row in x]
    return torch.stack([torch.stack([torch.cat([g.flatten() for g in grads]) for grads in row]) for row in rows])


def snapshot(model):
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    modes = [m.training for m in model.modules()]
    return {n: (t, t.detach().clone(), type(t), t.requires_grad) for n, t in tensors}, modes


def assert_same(model, before):
    after = snapshot(model)
    assert after[1] == before[1]
    assert after[0].keys() == before[0].keys()
    for name, (tensor, value, kind, trains) in before[0].items():
        assert after[0][name][0] is tensor
        assert torch.equal(tensor, value)
        assert (type(tensor), tensor.requires_grad) == (kind, trains)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_left_as_it_was_and_its_kernel_is_right(kind):
    model, x, v = KINDS[kind]().double(), torch.randn(5, 4).double(), torch.randn(5, 2).double()
    j = jacobian(model, x)
    before, attributes = snapshot(model), {n: dict(vars(m)) for n, m in model.named_modules()}
    whole = torch.einsum("aop,bqp->aboq", j, j)
    torch.testing.assert_close(empirical_ntk(model, x, every_output=True), whole)
    torch.testing.assert_close(empirical_ntk(model, x), whole.diagonal(dim1=2, dim2=3).mean(-1))
    torch.testing.assert_close(ntk_vector_product(model, x, v), torch.einsum("aboq,bq->ao", whole, v))
    assert_same(model, before)
    for name, part in model.named_modules():
        assert vars(part).keys() == attributes[name].keys()
        assert all(vars(part)[key] is value for key, value in attributes[name].items())
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_left_as_it_was_by_an_exception(kind):
    model, x = KINDS[kind](), torch.randn(3, 4)
    count = 0

    def fails(module, args, out):
        nonlocal count
        count += 1
        if count > limit:
            raise ValueError("stop")

    def measure_often(measure):
        for _ in range(9):
            measure()

    handle = model.register_forward_hook(fails)
    before = snapshot(model)
    for limit in range(6):  # noqa: B007  (the hook reads it)
        for measure in (
            lambda: empirical_ntk(model, x, every_output=True),
            lambda: ntk_vector_product(model, x, torch.ones(3, 2)),
        ):
            count = 0
            with pytest.raises(ValueError, match="stop"):
                measure_often(measure)
            assert_same(model, before)
    handle.remove()


@pytest.mark.parametrize("outputs", [1, 3, 5])
@pytest.mark.parametrize("slopes", [1, 8])
def test_prelu_whose_batching_rule_in_torch_is_wrong(outputs, slopes):
    model = nn.Sequential(nn.Linear(3, 8), nn.PReLU(slopes), nn.Linear(8, outputs)).double()
    x = torch.randn(5, 3).double()  # as many rows as outputs: torch gives wrong values, without an error
    j = jacobian(model, x)
    torch.testing.assert_close(
        empirical_ntk(model, x, every_output=True), torch.einsum("aop,bqp->aboq", j, j), rtol=1e-9, atol=1e-9
    )


def test_a_model_that_vmap_refuses():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return torch.cat([self.layer(row[None]) if row.sum() > 0 else -2 * self.layer(row[None]) for row in x])

    model, x = Branching().double(), torch.randn(4, 3).double()
    j = jacobian(model, x)
    torch.testing.assert_close(empirical_ntk(model, x, every_output=True), torch.einsum("aop,bqp->aboq", j, j))


class Centering(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x - x.mean(0))


class Summing(Centering):
    def forward(self, x):
        return self.layer(x).sum()


class Rooted(Centering):
    def forward(self, x):
        return self.layer(0 * x).sub(self.layer.bias).abs().sqrt()


class Noisy(Centering):
    def forward(self, x):
        return self.layer(x + torch.randn_like(x))


X = torch.linspace(-1, 1, 12).view(4, 3)
REFUSED = {
    "rows that are coupled": (lambda: empirical_ntk(Centering(), X), "other rows"),
    "rows that are coupled, in a product": (lambda: ntk_vector_product(Centering(), X, torch.ones(4, 2)), "other rows"),
    "noise": (lambda: empirical_ntk(Noisy(), X), "are random"),
    "one number for all rows": (lambda: empirical_ntk(Summing(), X), "one number for 4 rows|one tensor"),
    "a gradient that is infinite": (lambda: empirical_ntk(Rooted(), X), "not finite"),
    "a function": (lambda: empirical_ntk(torch.tanh, X), "nn.Module"),
    "a map of kernels": (lambda: empirical_ntk(infinite_width(nn.Linear(3, 2)), X), "nn.Module"),
    "an array": (lambda: empirical_ntk(nn.Linear(3, 2), X.numpy()), "ndarray"),
    "a number": (lambda: empirical_ntk(nn.Linear(3, 2), torch.tensor(1.0)), "0-dimensional"),
    "a lazy module": (lambda: empirical_ntk(nn.LazyLinear(3), X), "one batch first"),
    "no memory": (lambda: empirical_ntk(nn.Linear(3, 2), X, bytes_at_once=0), "bytes_at_once"),
    "a list in a product": (lambda: ntk_vector_product(nn.Linear(3, 2), X, [1.0]), "list"),
    "integers for a layer of floats": (lambda: empirical_ntk(nn.Linear(3, 2), X.long()), "fails on these inputs"),
    "other dtypes": (lambda: empirical_ntk(nn.Linear(3, 2), X.double()), "fails on these inputs"),
    "a compiled module": (
        lambda: empirical_ntk(torch.jit.script(nn.Linear(3, 2)), X, every_output=True),
        "TorchScript",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_tangent_kernel_is_refused(case, unchecked):
    make, says = REFUSED[case]
    with pytest.raises(InputError, match=says):
        make()
