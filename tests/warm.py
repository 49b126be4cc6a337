"""Processes forked from one that holds torch and the library already: without the seconds of a start.

They run without the check of annotations, as users do.
"""

import atexit
import os
import subprocess
import sys
import tempfile
from multiprocessing import forkserver, get_context, util
from pathlib import Path

from commutant.papers import module_of, slugs

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "pytest",
        *(f"commutant.cli._{name}" for name in ("app", "check", "reproduce", "show", "weights")),
        *map(module_of, slugs()),
        "commutant.report",
        "typer._adapters",
        "torch_geometric.nn",
        "lightning_fabric",
        "jinja2",
        "matplotlib.figure",
        "pandas",
        "sklearn.datasets",
        "transformers.modeling_utils",
        "torch.export._trace",
    ]
)

util.get_temp_dir()  # chosen before a test moves the folder of temporary files, whose path may be too long for a socket
atexit.register(forkserver._forkserver._stop)  # it is waited for, so that `time make test` counts its processes


def commutant(*arguments, cwd, before="", **environ):
    """Run a command as `python -m commutant.cli` does.

    Args:
        arguments: Words of the command line.
        cwd: Folder in which the command runs.
        before: Code that runs in the process before the command.
        environ: Environment variables of the process.
    """
    return python(f"{before}\nfrom commutant.cli import main\nmain()", *arguments, cwd=cwd, **environ)


def python(code, *arguments, cwd=None, **environ):
    """Run code as `python -c` does, with the words of its command line."""
    started = Started(code, *arguments, cwd=cwd, **environ)
    try:
        code = started.wait(300)
    finally:
        started.kill()
    return subprocess.CompletedProcess(arguments, code, started.out(), started.err())


class Started:
    """A running process, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, code, *arguments, cwd=None, **environ):
        self._folder = tempfile.TemporaryDirectory()
        streams = [Path(self._folder.name, name) for name in ("out", "err")]
        for stream in streams:
            stream.touch()
        self.out, self.err = (stream.read_text for stream in streams)
        words = ["commutant", *map(str, arguments)]
        given = (code, words, str(cwd or self._folder.name), environ, *map(str, streams))
        self._process = _FORKS.Process(target=_run, args=given)
        self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill

    def poll(self):
        return self._process.exitcode

    def wait(self, seconds=None):
        self._process.join(seconds)
        if self._process.is_alive():
            raise TimeoutError(f"a process takes more than {seconds} s")
        return self._process.exitcode


def _run(code, words, cwd, environ, out, err):
    for name, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(name, os.O_WRONLY), stream)
    os.environ.update({"COLUMNS": "160", **environ})
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    sys.argv = words
    exec(code, {"__name__": "__main__"})
