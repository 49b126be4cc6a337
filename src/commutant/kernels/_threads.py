"""Threads for kernels in C: those of the OpenMP that PyTorch runs its own loops in, or a pool."""

from __future__ import annotations

import collections
import concurrent.futures
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

_JOB = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_HOME = os.getpid()


def spread(run: Callable[..., None], jobs: Sequence[tuple[Any, ...]]) -> None:
    """Call `run(*job)` for each job, in as many threads as there are jobs.

    After one of its loops, PyTorch's OpenMP threads wait for the next one without sleep, and take the cores from any
    other thread. So jobs run in those threads where they can be reached, and else in a pool.

    Args:
        run: Function that gives up the interpreter lock while it computes.
        jobs: Arguments of each call.

    Raises:
        BaseException: What a call or an interrupt raised, after all calls have ended. What a signal handler raises
            before the first call counts as `KeyboardInterrupt`.
    """
    parallel = _openmp() if os.getpid() == _HOME else None  # threads don't survive a fork
    if parallel is None:
        pool = _pool(os.getpid(), max(1, len(jobs) - 1))
        waiting = [pool.submit(run, *job) for job in jobs[1:]]
        try:
            run(*jobs[0])
        finally:
            concurrent.futures.wait(waiting)
        for job in waiting:
            job.result()
        return
    left, begun, failed = collections.deque(jobs), set[int](), list[BaseException]()

    def work(_: int | None = None) -> None:
        try:
            begun.add(threading.get_ident())
            while left:
                run(*left.popleft())
        except IndexError:  # another thread took the last one
            pass
        except BaseException as error:
            failed.append(error)

    parallel(_JOB(work), None, len(jobs), 0)
    if threading.get_ident() not in begun:  # an interrupt came before the first line, where ctypes swallows it
        failed.append(KeyboardInterrupt())
    work()  # what is left then
    if failed:
        try:
            raise failed.pop(0)
        finally:
            failed.clear()  # else the traceback would keep the arguments alive


@functools.cache
def _openmp() -> Any:
    """Return the function of OpenMP that calls another in several threads, or None if PyTorch does not load one."""
    try:
        parallel = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    parallel.argtypes, parallel.restype = (_JOB, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return parallel


@functools.cache
def _pool(process: int, threads: int) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="commutant")
