"""The kernels of the CPU: C without dependencies, compiled at first use where there is a compiler."""

from __future__ import annotations

import concurrent.futures
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError

_SOURCE = Path(__file__).with_name("recurrences.c")
_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-shared", "-fPIC")
_WORTH_A_THREAD = 1 << 14  # numbers below which handing work to another thread costs more than it saves


@functools.cache
def library() -> Any:
    """The compiled kernels, or None where nothing compiles; kept in the user's cache folder."""
    compiler = next((c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None)
    if compiler is None:
        return None
    key = hashlib.sha256(_SOURCE.read_bytes() + " ".join((compiler, *_FLAGS)).encode() + _processor()).hexdigest()[:20]
    for folder in _folders():
        path = folder / f"recurrences-{key}.so"
        try:
            _compile(compiler, path)
            return ctypes.CDLL(str(path))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _processor() -> bytes:
    """What the code is compiled for: a cache folder may be shared between machines."""
    try:
        flags = next(
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Feat"))
        )
    except (OSError, StopIteration):
        flags = platform.processor()
    return f"{platform.machine()} {platform.system()} {flags}".encode()


def _folders() -> list[Path]:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [
        Path(home) / "commutant",
        Path(tempfile.gettempdir()) / f"commutant-{os.getuid() if hasattr(os, 'getuid') else ''}",
    ]


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid"):
        state = path.parent.stat()
        if state.st_uid != os.getuid() or state.st_mode & 0o022:
            raise OSError(f"{path.parent} can be written by others")
    if path.exists():
        return
    handle, made = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        for native in (("-march=native",), ("-mcpu=native",), ()):
            command = [compiler, *native, *_FLAGS, "-o", made, str(_SOURCE), "-lm"]
            if subprocess.run(command, capture_output=True, timeout=120).returncode == 0:
                os.replace(made, path)  # another process may have made the same
                return
        raise OSError(f"{compiler} does not compile {_SOURCE.name}")
    finally:
        Path(made).unlink(missing_ok=True)


@functools.cache
def _pool(process: int, threads: int) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="commutant")


def run(name: str, kind: str, tensors: tuple[Tensor, ...], sizes: tuple[int, ...], batch: int, work: int) -> None:
    """Call a kernel over all rows and channels, in as many threads as torch uses."""
    compiled = library()
    if compiled is None:
        raise InputError("the kernels of the CPU need a C compiler (cc, gcc or clang), and none works here")
    function = getattr(compiled, f"{name}_{kind}")
    channels = sizes[1]
    threads = min(torch.get_num_threads(), max(1, work // _WORTH_A_THREAD))
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
    numbers = [ctypes.c_int64(s) for s in sizes]

    def part(rows: tuple[int, int], columns: tuple[int, int], keep: tuple[Tensor, ...] = tensors) -> None:
        # a queued part holds on to its tensors: an interrupt may leave `run` before it is done
        function(*pointers, *numbers, *(ctypes.c_int64(n) for n in (*rows, *columns)))

    if threads == 1:
        part((0, batch), (0, channels))
        return
    if batch >= threads:
        jobs = [((i * batch // threads, (i + 1) * batch // threads), (0, channels)) for i in range(threads)]
    else:
        step = -(-channels // threads // 16) * 16 or 16
        jobs = [((0, batch), (d, min(d + step, channels))) for d in range(0, channels, step)]
    pool = _pool(os.getpid(), threads - 1)
    waiting = [pool.submit(part, *job) for job in jobs[1:]]  # ctypes lets go of the interpreter's lock
    part(*jobs[0])
    for job in waiting:
        job.result()
