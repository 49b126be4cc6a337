"""Cache of compiled kernels, which loads only complete libraries that this user built."""

import ctypes
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import warm
from commutant.kernels import _native

pytestmark = pytest.mark.skipif(_native.library() is None, reason="no C compiler")

PLANTED = "void gru_forward(void) {}\nint planted(void) { return 1; }\n"


@pytest.fixture
def fast(monkeypatch):
    """Compile without optimization, since only the cache is tested."""
    monkeypatch.setattr(_native, "_FLAGS", ("-O0", "-shared", "-fPIC"))


@pytest.fixture
def home(tmp_path, monkeypatch, fast):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(_native.tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    return tmp_path / "cache" / "commutant"


def load():
    return _native.library.__wrapped__()


def cached(home):
    return sorted(home.glob("recurrences-*"))


def planted(folder):
    """Return a library that was not built from the source of the kernels."""
    source, made = folder / "planted.c", folder / "planted.so"
    source.write_text(PLANTED)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", made, source], check=True)
    return made.read_bytes()


def is_genuine(library):
    return library is not None and hasattr(library, "lstm_backward") and not hasattr(library, "planted")


def test_a_library_is_built_once_and_kept(home, monkeypatch):
    assert is_genuine(load())
    (file,) = cached(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert not stat.S_IMODE(file.stat().st_mode) & 0o022
    monkeypatch.setattr(_native, "_compile", lambda _: pytest.fail("it was compiled again"))
    assert is_genuine(load())
    assert not list((home.parent.parent / "temporary").iterdir())


@pytest.mark.parametrize("damage", ["truncated", "empty", "planted", "one byte", "writable"])
def test_a_damaged_library_is_rebuilt_and_never_loaded(home, tmp_path, damage):
    assert is_genuine(load())
    (file,) = cached(home)
    good = file.read_bytes()
    if damage == "writable":
        file.chmod(0o666)
    else:
        bad = {"truncated": good[:5000], "empty": b"", "planted": planted(tmp_path), "one byte": good[:-1] + b"\1"}
        file.write_bytes(bad[damage])
    assert is_genuine(load())
    assert [f.read_bytes() == good and not f.stat().st_mode & 0o022 for f in cached(home)] == [True]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "old name"])
def test_what_is_no_file_of_this_name_is_passed_over(home, tmp_path, kind):
    assert is_genuine(load())
    (file,) = cached(home)
    elsewhere = tmp_path / "elsewhere.so"
    elsewhere.write_bytes(file.read_bytes() if kind == "link" else planted(tmp_path))
    file.unlink()
    if kind == "link":  # a link to the same contents, whose target may change after the check
        file.symlink_to(elsewhere)
        assert _native._digest(os.open(home, os.O_RDONLY), file.name) is None
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        (home / f"{file.name.rsplit('-', 1)[0]}.so").write_bytes(elsewhere.read_bytes())
    assert is_genuine(load())


def refuse_in(folder, descriptor=None):
    if descriptor is None or os.fstat(descriptor).st_ino == folder.stat().st_ino:
        raise PermissionError("read-only")


@pytest.mark.parametrize(
    "kind", ["group-writable", "open", "link", "file", "read-only", "unwritable home", "other owner"]
)
def test_an_unusable_folder_is_left_alone(home, tmp_path, monkeypatch, kind):
    target = tmp_path / "target"
    if kind in ("group-writable", "open", "link"):
        assert is_genuine(load())
        name, library = cached(home)[0].name, planted(tmp_path)
        (home / name).write_bytes(library)
    if kind in ("group-writable", "open"):
        home.chmod(0o770 if kind == "group-writable" else 0o777)
    elif kind == "link":
        home.rename(target)
        home.symlink_to(target)
    elif kind == "file":
        home.parent.mkdir()
        home.write_bytes(b"")
    elif kind == "other owner":
        home.mkdir(parents=True)
        real = _native._own
        monkeypatch.setattr(_native, "_own", lambda d: real(d) and os.fstat(d).st_ino != home.stat().st_ino)
    elif kind == "read-only":  # the tests may run as root, who may write to any folder
        home.mkdir(parents=True)
        real = _native._store
        monkeypatch.setattr(_native, "_store", lambda d, *rest: refuse_in(home, d) or real(d, *rest))
    else:
        monkeypatch.setattr(_native.os, "makedirs", lambda *_, **__: refuse_in(tmp_path))
    before = {f: f.read_bytes() for f in home.parent.rglob("*") if f.is_file()} if home.parent.exists() else {}
    assert is_genuine(load())
    after = {f: f.read_bytes() for f in home.parent.rglob("*") if f.is_file()} if home.parent.exists() else {}
    assert before == after
    assert not list((tmp_path / "temporary").iterdir())


def test_no_folder_in_the_temporary_directory_is_shared(home, tmp_path, monkeypatch):
    """Check that a folder with a guessable name and a library in it is ignored."""
    trap = tmp_path / "temporary" / f"commutant-{os.getuid()}"
    trap.mkdir()
    (trap / "recurrences-0.so").write_bytes(planted(tmp_path))
    home.parent.mkdir()
    home.write_bytes(b"")
    seen = []
    monkeypatch.setattr(
        _native.ctypes, "CDLL", lambda path, real=ctypes.CDLL: seen.append(os.path.realpath(path)) or real(path)
    )
    assert is_genuine(load())
    assert len(seen) == 1
    assert not Path(seen[0]).is_relative_to(trap)


def test_the_folder_that_was_checked_is_the_one_that_is_loaded_from(home, tmp_path, monkeypatch):
    assert is_genuine(load())
    name, evil = cached(home)[0].name, tmp_path / "evil"
    evil.mkdir()
    (evil / name).write_bytes(planted(tmp_path))

    def swapped(folder, key, real=_native._verified):
        found = real(folder, key)
        home.rename(tmp_path / "moved")
        home.symlink_to(evil)
        return found

    monkeypatch.setattr(_native, "_verified", swapped)
    if Path("/proc/self/fd").exists():
        assert is_genuine(load())


def test_no_folder_at_all(home, monkeypatch):
    def nowhere(*_, **__):
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(_native.os, "makedirs", nowhere)
    monkeypatch.setattr(_native.tempfile, "TemporaryDirectory", nowhere)
    assert load() is None


def test_many_builders_at_once(home):
    with ThreadPoolExecutor(4) as pool:
        assert all(is_genuine(lib) for lib in pool.map(lambda _: load(), range(4)))
    assert len({f.name for f in cached(home)}) == len(cached(home)) >= 1
    assert all(f.suffix == ".so" for f in cached(home))  # no unfinished file is left


def test_a_process_that_finds_a_truncated_library_starts(home, tmp_path):
    assert is_genuine(load())
    (file,) = cached(home)
    os.truncate(file, 4096)
    code = f"""
from commutant.kernels import _native
_native._FLAGS = {_native._FLAGS!r}
print(hasattr(_native.library(), "gru_forward"))
"""
    done = warm.python(code, XDG_CACHE_HOME=str(tmp_path / "cache"), TMPDIR=str(tmp_path / "temporary"))
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
    assert cached(home)[0].stat().st_size > 4096


def test_a_user_without_a_home_gets_no_folder_where_the_process_started(home, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    (tmp_path / "started").mkdir()
    monkeypatch.chdir(tmp_path / "started")
    for given in ("relative", "~nobody-of-this-name"):
        monkeypatch.setattr(_native.os.path, "expanduser", lambda path, given=given: path.replace("~", given))
        assert is_genuine(load())
    assert not list((tmp_path / "started").iterdir())


def compiler(path, script):
    """Return a compiler that runs a command on its last `-o`."""
    path.write_text(f"""#!/bin/sh
for word; do [ "$before" = -o ] && out=$word; before=$word; done
{script}
""")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "script", ['echo garbage > "$out"', "echo 'int f;' | cc -shared -fPIC -x c -o \"$out\" -", "cat", "true"]
)
def test_what_a_broken_compiler_made_is_not_used_and_does_not_stay_in_the_way(home, tmp_path, monkeypatch, script):
    broken = compiler(tmp_path / "broken", script)
    monkeypatch.setenv("CC", broken)
    assert load() is None
    compiler(tmp_path / "broken", 'exec cc "$@"')  # it has been repaired, under the same name
    assert is_genuine(load())
    monkeypatch.setattr(_native, "_compile", lambda _: pytest.fail("it was compiled again"))
    assert is_genuine(load())


def test_a_temporary_directory_that_lets_others_rename_its_folders_is_no_way_in(home, tmp_path, monkeypatch):
    """Check that a replaced private folder is not used; without a sticky bit, other users can replace it."""

    def swapped(command, real=subprocess.run, **settings):
        done = real(command, **settings)
        for private in list((tmp_path / "temporary").iterdir()):
            private.rename(tmp_path / "moved")
            private.mkdir()
            (private / "recurrences.so").write_bytes(library)
        return done

    library = planted(tmp_path)
    monkeypatch.setattr(_native.subprocess, "run", swapped)
    assert is_genuine(load())
    assert library not in [f.read_bytes() for f in cached(home)]


def test_an_installation_without_the_source_runs_without_kernels(home, tmp_path, monkeypatch):
    monkeypatch.setattr(_native, "_SOURCES", (tmp_path / "recurrences.c",))
    assert load() is None
