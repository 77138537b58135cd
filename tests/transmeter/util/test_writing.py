"""Output files and folders: complete or absent, checked before the work, one run at a time."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from transmeter.util import writing

FULL = "No space left on device"


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def child(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **options)


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path):
    file = tmp_path / "r.json"
    writing.write_json(file, {"a": 1})
    assert file.read_text() == '{\n "a": 1\n}\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask()
    file.chmod(0o640)
    writing.write_text(file, "ä")
    assert file.read_bytes() == "ä".encode() and stat.S_IMODE(file.stat().st_mode) == 0o640
    assert names(tmp_path) == ["r.json"]
    with pytest.raises(ValueError):
        writing.write_json(file, {"a": float("nan")})
    assert file.read_text() == "ä" and names(tmp_path) == ["r.json"]


def umask():
    found = os.umask(0)
    os.umask(found)
    return found


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, FULL), ValueError("bad"), KeyboardInterrupt()])
def test_after_an_error_the_older_file_is_kept_and_nothing_is_left(tmp_path, error):
    file = tmp_path / "r.json"
    file.write_text("older")
    with pytest.raises(type(error)) as found, writing.replacing(file) as partial:
        partial.write_text("new")
        raise error
    assert file.read_text() == "older" and names(tmp_path) == ["r.json"]
    if isinstance(error, OSError):
        assert str(found.value) == f"{file} cannot be written: {FULL}"


def test_a_full_disk_keeps_the_older_file(tmp_path):
    """The size of a file is limited for a process of its own: writing more than that fails as on a full disk."""
    file = tmp_path / "r.txt"
    file.write_text("older")
    code = """
import resource, signal, sys
from transmeter.util import writing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    writing.write_text(sys.argv[1], "x" * 2000)
except OSError as error:
    print(error)
"""
    process = child(code, file, stdout=subprocess.PIPE)
    assert process.communicate()[0] == f"{file} cannot be written: File too large\n"
    assert file.read_text() == "older" and names(tmp_path) == ["r.txt"]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there/real.txt", tmp_path / "link.txt"
    real.write_text("older")
    link.symlink_to(real)
    writing.write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new" and not real.is_symlink()
    assert names(tmp_path) == ["link.txt", "there"] and names(tmp_path / "there") == ["real.txt"]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="loop cannot be written: Too many levels of symbolic links"):
        writing.write_text(loop, "new")
    assert loop.is_symlink()


def test_a_device_stays_a_device():
    before = os.stat("/dev/null")
    assert writing.check_file("/dev/null") == Path("/dev/null")
    with writing.lock("/dev/null"):
        writing.write_text("/dev/null", "gone")
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode) and (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)
    assert not list(Path("/dev").glob(".null*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_named():
    with pytest.raises(OSError) as found:
        writing.write_text("/dev/full", "x")
    assert str(found.value) == f"/dev/full cannot be written: {FULL}"


def test_a_pipe_gets_the_bytes_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    writing.write_text(writing.check_file(pipe), "through")
    reader.join()
    assert read == ["through"] and stat.S_ISFIFO(pipe.stat().st_mode) and names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_written_in_order_also_where_it_is_a_file(tmp_path, name):
    code = (
        "import sys; from transmeter.util import writing; print('before');"
        "writing.write_text(writing.check_file(sys.argv[1]), 'between\\n'); print('after')"
    )
    with (tmp_path / "log").open("w") as log:
        assert child(code, name, stdout=log).wait() == 0
    assert (tmp_path / "log").read_text() == "before\nbetween\nafter\n" and names(tmp_path) == ["log"]
    assert child(code, name, stdout=subprocess.PIPE).communicate()[0] == "before\nbetween\nafter\n"


def test_two_writers_do_not_collide_and_long_names_fit(tmp_path):
    file = tmp_path / ("ä" * 127)  # 254 bytes, 255 is the most
    with writing.replacing(file) as one, writing.replacing(file) as two:
        assert one != two and {one.parent, two.parent} == {tmp_path} and one.name.startswith(".")
        one.write_text("one")
        two.write_text("two")
    assert file.read_text() == "one" and names(tmp_path) == [file.name]  # the last to be finished
    with writing.lock(file):
        pass
    assert names(tmp_path) == [file.name]


def test_a_folder_is_complete_or_absent(tmp_path):
    out = tmp_path / "out"
    with writing.new_folder(out) as partial:
        assert not out.exists() and partial.parent == tmp_path
        writing.write_json(partial / "a.json", [])
        (partial / "sub").mkdir()
        (partial / "sub/b").write_text("b")
    assert names(tmp_path) == ["out"] and names(out) == ["a.json", "sub"]
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o700)
    with writing.new_folder(empty) as partial:
        (partial / "a").write_text("a")
    assert names(empty) == ["a"] and stat.S_IMODE(empty.stat().st_mode) == 0o700
    with pytest.raises(OSError, match="^.*empty cannot be written: Directory not empty$"):
        with writing.new_folder(empty) as partial:
            (partial / "b").write_text("b")
    assert names(tmp_path) == ["empty", "out"] and names(empty) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("differs")])
def test_a_folder_is_removed_after_an_error(tmp_path, error):
    with pytest.raises(type(error)), writing.new_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("a")
        raise error
    assert names(tmp_path) == []


def test_an_error_in_a_file_of_a_folder_names_the_folder_once(tmp_path):
    with pytest.raises(OSError) as found, writing.new_folder(tmp_path / "out") as partial:
        with writing.replacing(partial / "a.json"):
            raise OSError(errno.ENOSPC, FULL)
    assert str(found.value) == f"{tmp_path}/out cannot be written: {FULL}"


@pytest.mark.parametrize("check", [writing.check_file, writing.check_new_folder, writing.check_folder])
def test_places_that_cannot_be_written_are_refused_in_one_line(tmp_path, check, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, message in {
        "none/r": "none/r is in a folder that does not exist: create it first",
        "file/r": f"file/r would be inside {tmp_path}/file, which is a file: give a",
        "link": f"link is a link to {tmp_path}/nowhere, which does not exist: give another",
        "loop": "loop cannot be written to (Too many levels of symbolic links): give a",
        "a" * 300: f"{'a' * 300} cannot be written to (File name too long): give a",
    }.items():
        with pytest.raises(ValueError) as found:
            check(tmp_path / name)
        assert message in str(found.value) and "\n" not in str(found.value)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(ValueError) as found:
        check(tmp_path / "new")
    assert f"{tmp_path} cannot be written to (Read-only file system): give a" in str(found.value)
    assert names(tmp_path) == ["file", "link", "loop"]


def test_a_taken_name_is_refused(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="full is a folder: give a file"):
        writing.check_file(tmp_path / "full")
    for taken in ("full", "full/file"):
        with pytest.raises(ValueError, match=f"{taken} exists already: give a new folder or remove it first"):
            writing.check_new_folder(tmp_path / taken)
    with pytest.raises(ValueError, match="full/file is a file: give a folder"):
        writing.check_folder(tmp_path / "full/file")
    for name in ("empty", "new"):
        assert writing.check_new_folder(tmp_path / name) == tmp_path / name
    assert writing.check_folder(tmp_path / "full") == tmp_path / "full"
    assert writing.check_file(tmp_path / "full/file") == tmp_path / "full/file"
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ValueError, match="is the current folder: give a new folder inside it"):
        writing.check_new_folder(".")
    assert names(tmp_path) == ["empty", "full"] and names(tmp_path / "empty") == []


def test_a_write_protected_file_is_left_alone(tmp_path, monkeypatch):
    file = tmp_path / "r.json"
    file.write_text("older")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may do everything
    with pytest.raises(ValueError, match=r"r.json cannot be written to \(Permission denied\): give a file elsewhere"):
        writing.check_file(file)
    with pytest.raises(OSError, match="r.json cannot be written: Permission denied"):
        writing.write_text(file, "new")
    assert file.read_text() == "older" and names(tmp_path) == ["r.json"]


HOLD = """
import sys
from transmeter.util import writing
with writing.lock(sys.argv[1]), writing.new_folder(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_at_once(tmp_path):
    out, link = tmp_path / "out", tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    first = child(HOLD, out, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == "locked\n"
    message = f"is being written by another run (process {first.pid}): wait for it or give another output"
    for path in (out, link / "out"):
        with pytest.raises(ValueError) as found, writing.lock(path):
            pass
        assert str(found.value) == f"{path} {message}"
        for check in (writing.check_new_folder, writing.check_file):
            with pytest.raises(ValueError) as found:
                check(path)
            assert str(found.value) == f"{path} {message}"
    first.stdin.close()
    assert first.wait() == 0
    assert names(tmp_path) == ["link", "out"]
    with writing.lock(out):
        assert writing.check_folder(out) == out  # its own lock is none of another run
        with pytest.raises(ValueError, match="out is being written by another run"), writing.lock(out):
            pass
    assert names(tmp_path) == ["link", "out"]


def test_a_killed_run_leaves_no_lock_and_its_litter_goes(tmp_path):
    out = tmp_path / "out[1]"
    first = child(HOLD, out, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == "locked\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert len(names(tmp_path)) == 2  # the file of the lock, and the folder that was begun
    (tmp_path / f".out[1].{os.getpid()}-0123abcd.partial").write_text("of a run that goes on")
    with writing.lock(writing.check_new_folder(out)):
        pass
    assert names(tmp_path) == [f".out[1].{os.getpid()}-0123abcd.partial"]


def test_where_there_are_no_locks_the_work_is_done(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(writing.fcntl, "flock", none)
    with writing.lock(tmp_path / "out"):
        pass
    assert names(tmp_path) == []


def test_only_the_standard_library_is_imported():
    code = "import sys; from transmeter.util import writing; print(sorted(set(sys.modules) & {'numpy', 'click'}))"
    assert child(code, stdout=subprocess.PIPE).communicate()[0] == "[]\n"
