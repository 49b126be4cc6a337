"""`commutant` in a separate process, forked from one that has imported torch, which saves seconds per call."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["pytest", "commutant.cli._check", "commutant.papers", "commutant.weights"])


def commutant(*arguments, cwd):
    """Run `python -m commutant.cli` in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("out", "err")]
        for stream in streams:
            stream.touch()
        process = _FORKS.Process(target=_run, args=([*map(str, arguments)], str(cwd), *map(str, streams)))
        process.start()
        process.join(300)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"commutant {' '.join(map(str, arguments))} takes more than 300 s")
        out, err = (stream.read_text() for stream in streams)
    return subprocess.CompletedProcess(arguments, process.exitcode, out, err)


def _run(arguments, cwd, out, err):
    for name, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(name, os.O_WRONLY), stream)
    os.environ["COLUMNS"] = "160"
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    sys.argv = ["commutant", *arguments]
    from commutant.cli import main

    main()
