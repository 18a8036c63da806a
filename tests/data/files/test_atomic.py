"""Files and folders replaced whole or not at all."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from audiollm.data.files.atomic import atomic_entries, atomic_folder, atomic_write


def test_the_new_file_appears_only_when_the_block_ends(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write("näu\n")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_bytes() == "näu\n".encode()
    with atomic_write(path, "wb") as file:
        file.write(b"\xff")
    assert path.read_bytes() == b"\xff"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")

    def write_half():
        with atomic_write(path) as file:
            file.write("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_link_is_followed_and_the_usual_permissions_apply(tmp_path):
    (tmp_path / "plain").write_text("")
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_write(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_and_a_wrong_mode_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none" / "a"):
        pass
    with pytest.raises(ValueError, match=r"mode='a'"), atomic_write(tmp_path / "a", "a"):
        pass


def _tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.mark.parametrize("existing", ["replace", "keep", "refuse"])
def test_a_folder_appears_when_the_block_ends_and_with_the_usual_permissions(tmp_path, existing):
    (tmp_path / "plain").mkdir()
    target = tmp_path / "parents" / "are" / "made"
    with atomic_folder(target, existing=existing) as folder:
        assert not list(folder.iterdir())
        (folder / "inner").mkdir(mode=0o700)
        (folder / "inner" / "a").write_text("new")
        (folder / "inner" / "a").chmod(0o600)  # as libraries write weights
        assert not target.exists()
    assert _tree(target) == {"inner": None, "inner/a": "new"}
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode == (target / "inner").stat().st_mode
    (tmp_path / "file").write_text("")
    assert (target / "inner" / "a").stat().st_mode == (tmp_path / "file").stat().st_mode
    assert os.listdir(target.parent) == ["made"]


def test_a_folder_is_replaced_whole_also_behind_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    (target / "old").write_text("old")
    link.symlink_to(target)
    with atomic_folder(link) as folder:
        (folder / "new").write_text("new")
        assert _tree(target) == {"old": "old"}
    assert link.is_symlink()
    assert _tree(target) == {"new": "new"}
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


@pytest.mark.parametrize("make", [atomic_folder, atomic_entries])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_block_leaves_the_old_folder_and_nothing_else(tmp_path, make, error):
    target = tmp_path / "target"

    def write_half():
        with make(target) as folder:
            (folder / "a").write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert not list(tmp_path.iterdir())
    target.mkdir()
    (target / "a").write_text("old")
    with pytest.raises(error):
        write_half()
    assert _tree(tmp_path) == {"target": None, "target/a": "old"}


@pytest.mark.parametrize("make", [atomic_folder, atomic_entries])
def test_a_full_disk_is_told_with_the_target_and_others_errors_as_they_are(tmp_path, make):
    class OwnError(OSError):
        pass

    def fail(error):
        with make(tmp_path / "target"):
            raise error

    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "No space left in the quota"),
        SafetensorError("No space left on device"),
    ):
        with pytest.raises(OSError, match=r"target could not be written: .*No space left") as raised:
            fail(error)
        assert raised.value.__cause__ is error
    for own in (OwnError("speaks for itself"), OwnError(errno.EIO, "likewise"), TimeoutError(errno.ETIMEDOUT, "late")):
        with pytest.raises(OSError) as raised:  # noqa: PT011 - it is the very one
            fail(own)
        assert raised.value is own


@pytest.mark.parametrize("make", [atomic_folder, atomic_entries])
def test_a_source_that_is_missing_is_no_matter_of_the_target(tmp_path, make):
    with pytest.raises(FileNotFoundError) as raised, make(tmp_path / "target") as folder:
        (folder / "a").write_bytes((tmp_path / "source").read_bytes())
    assert "target" not in str(raised.value)
    assert raised.value.filename == str(tmp_path / "source")


@pytest.mark.parametrize("make", [atomic_folder, atomic_entries])
def test_a_step_of_ours_that_fails_names_the_target_and_keeps_its_class(tmp_path, make, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "target").mkdir()
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(PermissionError, match=r"target could not be written: .*Permission denied"):
        make(tmp_path / "target").__enter__()


def test_a_cache_may_be_read_by_all_whatever_the_umask(tmp_path):
    def write(existing):
        with atomic_folder(tmp_path / existing / "inner" / "made", existing=existing) as folder:
            (folder / "part").mkdir()
            (folder / "part" / "a").write_text("new")
        return {path.stat().st_mode & 0o777 for path in (tmp_path / existing, *(tmp_path / existing).rglob("*"))}

    before = os.umask(0o077)
    try:
        assert write("keep") == {0o755, 0o644}
        assert write("replace") == {0o700, 0o600}
    finally:
        os.umask(before)


@pytest.mark.parametrize("make", [atomic_folder, atomic_entries])
def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, make, monkeypatch):
    target = tmp_path / "target" if make is atomic_folder else tmp_path / "target" / "part"
    target.mkdir(parents=True)
    (target / "a").write_text("old")
    before = _tree(tmp_path)
    rename = os.replace

    def failing(source, place):
        if os.fspath(place) == str(target) and not os.fspath(source).endswith(".old.tmp"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, place)

    def write():
        with make(tmp_path / "target") as folder:
            inner = folder if make is atomic_folder else folder / "part"
            inner.mkdir(exist_ok=True)
            (inner / "a").write_text("new")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output error"):
        write()
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("existing", ["keep", "refuse"])
def test_the_loser_of_a_race_takes_the_winners_folder(tmp_path, existing):
    target = tmp_path / "made"
    with atomic_folder(target, existing=existing) as ours:
        (ours / "file").write_text("ours")
        target.mkdir()
        (target / "file").write_text("theirs")
    assert _tree(tmp_path) == {"made": None, "made/file": "theirs"}


def test_what_is_there_may_be_kept_or_refused(tmp_path):
    target = tmp_path / "made"
    target.mkdir()
    (target / "a").write_text("old")
    with atomic_folder(target, existing="keep") as folder:
        (folder / "a").write_text("new")
    assert _tree(target) == {"a": "old"}
    with pytest.raises(FileExistsError, match="made exists already"), atomic_folder(target, existing="refuse"):
        pass
    with pytest.raises(FileExistsError, match="a is a file"), atomic_folder(target / "a"):
        pass
    assert _tree(target) == {"a": "old"}


def test_entries_replace_their_namesakes_and_leave_the_rest(tmp_path):
    target = tmp_path / "model"
    with atomic_entries(target) as folder:
        (folder / "model-00001.safetensors").write_text("part")
        (folder / "inner").mkdir()
        (folder / "inner" / "old").write_text("old")
    (target / "README.md").write_text("mine")
    with atomic_entries(target, outdated=["model*.safetensors"]) as folder:
        (folder / "model.safetensors").write_text("whole")
        (folder / "inner").mkdir()
        (folder / "inner" / "new").write_text("new")
        assert "model-00001.safetensors" in os.listdir(target)
    assert _tree(target) == {"README.md": "mine", "model.safetensors": "whole", "inner": None, "inner/new": "new"}
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("make", [atomic_folder, atomic_entries])
def test_what_a_killed_process_left_is_gone_after_the_next_write(tmp_path, make):
    target = tmp_path / "target"
    target.mkdir()
    (target / "a").write_text("old")
    code = (
        f"import os, sys; from audiollm.data.files.atomic import *; block = {make.__name__}(sys.argv[1]); "
        "folder = block.__enter__(); (folder / 'a').write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == -signal.SIGKILL
    assert (target / "a").read_text() == "old"
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    with make(target) as ours, make(target) as others:  # of living processes nothing is taken
        (ours / "a").write_text("new")
        (others / "b").write_text("new")
    assert (target / "a").read_text() == "new"
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_that_was_moved_aside_when_its_process_was_killed_comes_back(tmp_path):
    target = tmp_path / "target"
    code = (
        "import os, sys; from audiollm.data.files import atomic; rename = os.replace; "
        "os.replace = lambda *names: (rename(*names), os.kill(os.getpid(), 9))\n"
        "with atomic.atomic_folder(sys.argv[1]) as folder: (folder / 'a').write_text('new')"
    )
    target.mkdir()
    (target / "a").write_text("old")
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == -signal.SIGKILL
    assert not target.exists()

    def fail():
        with atomic_folder(target):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert _tree(tmp_path) == {"target": None, "target/a": "old"}


@pytest.mark.parametrize("make", [atomic_folder, atomic_entries])
def test_what_a_process_writes_that_no_number_tells_of_is_left_alone(tmp_path, make):
    """In another container the same number may be of another process, or of none."""
    target = tmp_path / "target"
    target.mkdir()
    code = (
        f"import os, sys; from audiollm.data.files.atomic import *; os.getpid = lambda: {2**30}\n"
        f"with {make.__name__}(sys.argv[1]) as folder:\n"
        "    print(flush=True); sys.stdin.read(); (folder / 'a').write_text('whole')"
    )
    command = [sys.executable, "-c", code, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with make(target) as folder:
            (folder / "b").write_text("ours")
        other.stdin.close()
        assert other.wait() == 0
    assert (target / "a").read_text() == "whole"
    assert not list(tmp_path.rglob("*.tmp"))
