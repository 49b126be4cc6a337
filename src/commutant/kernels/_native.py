"""CPU kernels in C without dependencies, compiled at first use if there is a compiler."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import platform
import re
import secrets
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ._threads import spread

_SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("recurrences.c", "attention.c", "pointing.c", "messages.c")
)
_HEADER = Path(__file__).with_name("elementary.h")
_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-shared", "-fPIC")
_RECURRENCES = tuple(f"{n}_{k}" for n in ("gru", "lstm", "mingru", "minlstm", "sru") for k in ("forward", "backward"))
_ATTENTION = ("attention_forward", "attention64_forward", "pointing_forward", "pointing_backward")
_STEPS = ("cell_forward", "selected_forward")
_MESSAGES = ("messages_forward", "messages_backward")
_FUNCTIONS = (*_RECURRENCES, *_ATTENTION, *_STEPS, *_MESSAGES)
_WORTH_A_THREAD = 1 << 14  # least numbers per thread, since handing over less work costs more than it saves


@functools.cache
def library() -> Any:
    """Return the compiled kernels, or None if they can't be compiled.

    They are stored in the user's cache folder. If that folder is missing, not writable or writable by others, they are
    compiled for this process only, in a private temporary folder.
    """
    compiler = next((c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None)
    if compiler is None or not hasattr(os, "getuid"):
        return None
    try:
        source = b"".join(path.read_bytes() for path in (_HEADER, *_SOURCES))
    except OSError:  # an installation without the source
        return None
    key = hashlib.sha256(source + os.fsencode(" ".join((compiler, *_FLAGS))) + _processor()).hexdigest()[:20]
    built: bytes | None = None
    for place in (_cache, _scratch):
        try:
            with place() as path, _opened(path) as folder:
                names = _verified(folder, key)
                for name in names:
                    with contextlib.suppress(OSError):  # built by a broken compiler, or for another C library
                        return _load(folder, path, name)
                built = built or _compile(compiler)
                if _name(key, built) not in names:
                    return _load(folder, path, _store(folder, _name(key, built), built))
        except _DoesNotCompile:
            return None
        except OSError:
            continue
    return None


class _DoesNotCompile(Exception):
    """Failure of every compiler to compile the source."""


def _processor() -> bytes:
    """Return a description of the processor, since machines may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Feat")))
    except (OSError, StopIteration):
        flags = platform.processor()
    return f"{platform.machine()} {platform.system()} {flags}".encode()


@contextlib.contextmanager
def _cache() -> Iterator[str]:
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~/.cache")
    if not os.path.isabs(home):  # without a home folder, the path would be relative to the working directory
        raise OSError(f"the cache folder {home} is relative")
    path = os.path.join(home, "commutant")
    os.makedirs(path, mode=0o700, exist_ok=True)
    yield path


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="commutant-")


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """Yield a descriptor of a folder that no other user can write to, so that its contents can't be exchanged later."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if not _own(folder):
            raise OSError(f"{path} can be written by others")
        yield folder
    finally:
        os.close(folder)


def _own(descriptor: int) -> bool:
    state = os.fstat(descriptor)
    return state.st_uid == os.getuid() and not state.st_mode & 0o022


def _verified(folder: int, key: str) -> list[str]:
    """Return the names of the libraries of this key whose contents match the hash in their name."""
    found = []
    for name in sorted(os.listdir(folder)):
        named = re.fullmatch(rf"recurrences-{key}-([0-9a-f]{{64}})\.so", name)
        if named and _digest(folder, name) == named[1]:
            found.append(name)
    return found


def _digest(folder: int, name: str) -> str | None:
    """Return the hash of a regular file of this user, or None for links, pipes and files that others may write."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not _own(descriptor):
            return None
        return hashlib.sha256(file.read()).hexdigest()


def _name(key: str, library: bytes) -> str:
    return f"recurrences-{key}-{hashlib.sha256(library).hexdigest()}.so"


def _store(folder: int, name: str, library: bytes) -> str:
    """Write a library and return its name; a rename makes it appear complete even if others build it too."""
    unfinished = f"{name}.{secrets.token_hex(8)}"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(library)
        os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(unfinished, dir_fd=folder)
        raise
    return name


def _held(folder: int, path: str) -> str:
    """Return a path to the opened folder that stays valid if its original path is redirected."""
    held = f"/proc/self/fd/{folder}"
    return held if os.path.isdir(held) else path


def _load(folder: int, path: str, name: str) -> ctypes.CDLL:
    loaded = ctypes.CDLL(os.path.join(_held(folder, path), name))
    missing = [f for f in _FUNCTIONS if not hasattr(loaded, f)]
    if missing:
        raise OSError(f"{name} lacks {', '.join(missing)}")
    return loaded


def _compile(compiler: str) -> bytes:
    """Return the library, compiled in a private folder that is used by descriptor, as others may rename its path."""
    with _scratch() as path, _opened(path) as folder:
        made = "recurrences.so"
        for native in (("-march=native",), ("-mcpu=native",), ()):
            command = [os.path.abspath(shutil.which(compiler) or compiler), *native, *_FLAGS]
            command += ["-o", made, *(str(path.absolute()) for path in _SOURCES), "-lm"]
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    timeout=120,
                    stdin=subprocess.DEVNULL,
                    cwd=_held(folder, path),
                    env={**os.environ, "TMPDIR": "."},  # keeps intermediate files private too
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise _DoesNotCompile(f"{compiler} cannot be run") from error
            if done.returncode == 0:
                with open(os.open(made, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
                    return file.read()
    raise _DoesNotCompile(f"{compiler} does not compile {', '.join(path.name for path in _SOURCES)}")


def run(
    name: str,
    kind: str,
    tensors: tuple[Tensor, ...],
    sizes: tuple[int, ...],
    batch: int,
    work: int,
    starts: Tensor | None = None,
) -> None:
    """Call a kernel over all rows and channels, in up to as many threads as torch uses.

    Args:
        name: Name of the kernel, such as "gru".
        kind: Direction, "forward" or "backward".
        tensors: Contiguous tensors of the kernel's dtype, the first arguments of the C function.
        sizes: Integers that follow, with the number of channels second.
        batch: Number of rows.
        work: Number of output values, which decides the number of threads.
        starts: For rows of different lengths, the ascending sums of lengths before each, and their total last.
    """
    compiled = library()
    if compiled is None:
        raise InputError("CPU kernels need a C compiler (cc, gcc or clang), found none that works; install one")
    function = getattr(compiled, f"{name}_{kind}")
    channels = sizes[1]
    threads = min(torch.get_num_threads(), max(1, work // _WORTH_A_THREAD))
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
    numbers = [ctypes.c_int64(s) for s in sizes]

    def part(rows: tuple[int, int], columns: tuple[int, int], keep: tuple[Tensor, ...] = tensors) -> None:
        # keeps the tensors alive, since an interrupt may leave `run` before a queued part is done
        function(*pointers, *numbers, *(ctypes.c_int64(n) for n in (*rows, *columns)))

    if threads == 1:
        part((0, batch), (0, channels))
        return
    if batch >= threads:
        cuts = [i * batch // threads for i in range(threads + 1)]
        if starts is not None:
            wanted = int(starts[-1]) * torch.arange(1, threads) // threads
            cuts[1:-1] = torch.searchsorted(starts, wanted).tolist()
        jobs = [(rows, (0, channels)) for rows in itertools.pairwise(cuts)]
    else:
        step = -(-channels // threads // 16) * 16 or 16
        jobs = [((0, batch), (d, min(d + step, channels))) for d in range(0, channels, step)]
    spread(part, jobs)
