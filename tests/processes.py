"""Real processes of a gloo group for tests."""

import os
import sys

import torch
import torch.distributed as dist


def run_in_group(function, folder, *arguments, size=2):
    """Call `function(rank, size, folder, *arguments)` in each process of a group; an error in one of them is raised."""
    torch.multiprocessing.spawn(_member, (function, size, str(folder), arguments), size)


def _member(rank, function, size, folder, arguments):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    function(rank, size, folder, *arguments)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of gloo that still run abort the interpreter's own end now and then
