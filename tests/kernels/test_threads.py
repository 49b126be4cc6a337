"""Threads of kernels in C: every job runs once, and errors, interrupts, forks and uneven rows do no harm."""

import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from commutant.kernels import _native, _threads, edge_messages
from commutant.kernels._threads import spread

pytestmark = pytest.mark.skipif(_native.library() is None, reason="no C compiler")


@pytest.fixture(params=["openmp", "pool", "one thread"])
def threads(request, monkeypatch):
    if request.param == "pool":
        monkeypatch.setattr(_threads, "_openmp", lambda: None)
    elif _threads._openmp() is None:
        pytest.skip("PyTorch loads no OpenMP with this interface")
    elif request.param == "one thread":  # as inside another parallel region
        monkeypatch.setattr(_threads, "_openmp", lambda: lambda job, *_: job(None))
    return request.param


@pytest.mark.parametrize("jobs", [1, 2, 3, 17])
def test_each_job_runs_once(threads, jobs):
    done = []
    spread(lambda i, j: done.append((i, j)), [(i, -i) for i in range(jobs)])
    assert sorted(done) == [(i, -i) for i in range(jobs)]


def test_an_error_in_a_job_is_raised(threads):
    def run(i):
        if i == 1:
            raise ValueError("job 1")

    with pytest.raises(ValueError, match="job 1"):
        spread(run, [(i,) for i in range(3)])


def test_jobs_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=30)
    spread(lambda _: meeting.wait(), [(0,), (1,)])


def test_an_interrupt_is_raised_after_all_jobs(threads):
    done, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of pytest ignore interrupts

    def run(i):
        try:
            if i == 0:
                signal.raise_signal(signal.SIGINT)
        finally:
            time.sleep(0.05)
            done.append(i)

    try:
        with pytest.raises(KeyboardInterrupt):
            spread(run, [(i,) for i in range(2)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(done) == [0, 1]


def test_a_forked_process_does_not_wait_for_threads_that_it_lacks():
    code = """
import os
from commutant.kernels._threads import spread
done = []
spread(done.append, [(0,), (1,)])
child = os.fork()
if not child:
    spread(done.append, [(2,), (3,)])
    os._exit(0 if sorted(done) == [0, 1, 2, 3] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0"], done.stderr


def test_rows_of_different_lengths_are_divided_by_their_sum(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    given = []
    monkeypatch.setattr(_native, "spread", lambda run, jobs: given.extend(jobs) or _threads.spread(run, jobs))
    lengths = torch.tensor([1, 1, 1, 1, 300, 0, 2, 300, 300])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    node = torch.randn(int(starts[-1]), 64)
    none = torch.zeros(0, 64), torch.zeros(0, 2, dtype=torch.long)
    assert torch.equal(edge_messages(node, *none, starts, torch.zeros(len(starts), dtype=torch.long)), node)
    rows = [rows for rows, _ in given]
    assert [a for a, _ in rows] == [0, *(b for _, b in rows[:-1])]
    assert rows[-1][1] == 9
    assert max(int(lengths[a:b].sum()) for a, b in rows) <= 304
