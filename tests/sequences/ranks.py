"""Functions that each process of the sequence-parallel tests runs, started by torch.multiprocessing without pytest."""

import datetime
import os
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from commutant import CommutantError
from commutant.sequences import SRU, ParaGRU, ParaLSTM, parallel_rnn, solve_recurrence

SPLITS = {2: [(40, 50), (90, 0), (1, 89)], 4: [(20, 30, 25, 15), (0, 44, 0, 46)]}


def start(rank, size, store, timeout=60):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=datetime.timedelta(seconds=timeout)
    )
    return dist.group.WORLD


def modules():
    torch.manual_seed(0)
    bistable = ParaGRU(3, 4, batch_first=True, a_max=None)
    with torch.no_grad():
        bistable.weight_hh_l0.mul_(8)
    return {
        "gru": ParaGRU(3, 4, num_layers=2, batch_first=True),
        "lstm": ParaLSTM(3, 4, batch_first=True),
        "bistable": bistable,
        "dense": parallel_rnn(torch.nn.GRUCell(3, 4)),
        "newton": ParaGRU(3, 4, batch_first=True, method="newton"),
    }


def inputs():
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, 90, 3, generator=g, dtype=torch.float64), torch.randn(
        2, 90, 4, generator=g, dtype=torch.float64
    )


def run(module, x, weights, **options):
    x = x.clone().requires_grad_()
    h_0 = torch.full((2, 4), 0.3, dtype=torch.float64, requires_grad=True)
    if isinstance(module, ParaLSTM):
        state = (h_0[None], 0.5 * h_0[None])
    elif isinstance(module, ParaGRU):
        state = h_0.expand(module.num_layers, 2, 4)
    else:
        state = h_0
    y, _ = module(x, state, **options)
    grads = torch.autograd.grad((y * weights).sum(), (x, h_0, *module.parameters()), allow_unused=True)
    return [y.detach(), *grads]


def agree(rank, size, store, out):
    """Save outputs and gradients of every module and split, with gradients of parameters summed over the ranks."""
    group, (x, weights), found = start(rank, size, store), inputs(), {}
    for name, module in modules().items():
        for split in SPLITS[size]:
            begin, end = sum(split[:rank]), sum(split[: rank + 1])
            mine = run(module.double(), x[:, begin:end], weights[:, begin:end], process_group=group)
            for gradient in mine[2:]:
                dist.all_reduce(gradient, group=group)
            found[name, split] = (mine, module.info[-1].iterations, module.info[-1].converged)
    torch.save(found, f"{out}.{rank}")
    dist.destroy_process_group()


def expanding():
    """Return a recurrence whose derivative over a segment overflows, its inputs, and weights of a loss at step 45."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 90, 3, generator=g)
    weights = torch.zeros(1, 90, 3)
    weights[:, 45] = 1
    return (lambda h, x: torch.sin(3e4 * h + x)), x, weights


def overflow(rank, size, store, out):
    """Save the states and the gradient of x on this rank."""
    group, (step, x, weights) = start(rank, size, store), expanding()
    mine = slice(45 * rank, 45 * (rank + 1))
    x = x[:, mine].clone().requires_grad_()
    states, _ = solve_recurrence(step, x, torch.zeros(1, 3), structure="diagonal", process_group=group)
    (states * weights[:, mine]).sum().backward()
    torch.save((states.detach(), x.grad), f"{out}.{rank}")
    dist.destroy_process_group()


def with_ddp(rank, size, store, out):
    """Train on a 2 x 2 mesh: batch over one axis, time over the other, DDP over both."""
    start(rank, size, store)
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "time"))
    group, (x, weights) = mesh.get_group("time"), inputs()
    row, part = mesh.get_coordinate()
    module = modules()["gru"].double()
    ddp = DistributedDataParallel(module)
    times = (slice(0, 40), slice(40, 90))[part]
    (ddp(x[row : row + 1, times], process_group=group)[0] * weights[row : row + 1, times]).sum().backward()
    torch.save([p.grad * size for p in module.parameters()], f"{out}.{rank}")  # DDP averages
    dist.destroy_process_group()


def lose(rank, size, store, out, phase):
    """Let rank 1 die before the forward or the backward pass; the other ranks must report it and not hang."""
    group, (x, _) = start(rank, size, store, timeout=20), inputs()
    module = modules()["gru"].double()
    x = x[:, rank * 40 : (rank + 1) * 40].requires_grad_()
    if rank == 1 and phase == "forward":
        os._exit(3)
    try:
        y = module(x, process_group=group)[0]
        if rank == 1:
            os._exit(3)
        y.sum().backward()
    except CommutantError as error:
        said = str(error)
    else:
        said = "nothing"
    with open(f"{out}.{rank}", "w") as file:
        file.write(said)
    os._exit(0)


def errors(rank, size, store, out):
    """Save the error message of each wrong call."""
    group, said = start(rank, size, store), {}
    torch.manual_seed(0)  # Newton's method fails on this input
    x = torch.randn(2, 10, 3)
    calls = {
        "bidirectional": lambda: ParaGRU(3, 4, bidirectional=True)(x, process_group=group),
        "sru": lambda: SRU(3, 4)(x, process_group=group),
        "not a group": lambda: ParaGRU(3, 4)(x, process_group="world"),
        "loop": lambda: ParaGRU(3, 4, method="loop")(x, process_group=group),
        "batches": lambda: ParaGRU(3, 4, batch_first=True)(x[: rank + 1], process_group=group),
        "structure": lambda: solve_recurrence(
            lambda h, x: torch.tanh(h + x + rank * h.flip(-1)),
            x,
            torch.zeros(2, 3),
            structure="diagonal",
            process_group=group,
        ),
        "newton": lambda: solve_recurrence(
            lambda h, x: torch.tanh((1 + 5 * rank) * h + x),
            9 * x,
            torch.zeros(2, 3),
            method="newton",
            on_fail="raise",
            process_group=group,
        ),
        "step": lambda: solve_recurrence(
            lambda h, x: torch.tanh(h + x) if rank == 0 else 1 / 0,
            x,
            torch.zeros(2, 3),
            structure="diagonal",
            process_group=group,
        ),
        "second": lambda: torch.autograd.grad(
            solve_recurrence(
                lambda h, x: torch.tanh(h + x), x.requires_grad_(), torch.zeros(2, 3), process_group=group
            )[0].sum(),
            x,
            create_graph=True,
        ),
    }
    for name, call in calls.items():
        try:
            call()
        except (CommutantError, ZeroDivisionError) as error:
            said[name] = str(error)
    # only one rank wants gradients, and no rank has rows: no hang, no error
    h_0 = torch.zeros(1, 2, 4, requires_grad=rank == 0)
    layer = ParaGRU(3, 4, batch_first=True).requires_grad_(False)
    layer(x, h_0, process_group=group)[0].sum().backward()
    said["gradient"] = rank > 0 or bool(h_0.grad.abs().sum() > 0)
    layer.requires_grad_()(x[:0], process_group=group)[0].sum().backward()
    solve_recurrence(lambda h, x: torch.tanh(h + x), x[:0].detach().requires_grad_(), x[:0, 0], process_group=group)[
        0
    ].sum().backward()
    torch.save(said, f"{out}.{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    function, size, store, out, *rest = sys.argv[1:]
    torch.multiprocessing.start_processes(
        globals()[function], (int(size), store, out, *rest), int(size), start_method="fork", join=function != "lose"
    )
