"""One process at a time at an output."""

import signal
import subprocess
import sys

import pytest

from audiollm.data.files.lock import (
    FileInUseError,
    UnwritableError,
    held_run_folder,
    holds_nothing,
    locked_file,
    locked_folder,
)


@pytest.mark.parametrize("hold", [locked_file, locked_folder])
def test_a_second_one_is_refused(tmp_path, hold):
    output = tmp_path / "out"
    with hold(output), pytest.raises(FileInUseError, match=r"out is being written by another process.*, or go away"):
        hold(output, otherwise="go away").__enter__()
    with hold(output):
        pass


@pytest.mark.parametrize("hold", [locked_file, locked_folder])
def test_one_who_comes_while_the_lock_is_released_holds_the_same_file(tmp_path, hold):
    """If the owner removed it, the next one could hold it without a name, and a third one another of that name."""
    output = tmp_path / "out"
    with hold(output):
        (lock,) = tmp_path.rglob("*.lock")
        opened = lock.stat().st_ino
    with hold(output):
        assert lock.stat().st_ino == opened


def test_the_files_by_which_things_were_held_do_not_fill_a_folder(tmp_path):
    folder = tmp_path / "out"
    assert holds_nothing(folder)
    with locked_folder(folder), locked_file(folder / "a.jsonl"):
        assert holds_nothing(folder)
    assert holds_nothing(folder)
    (folder / ".hidden").touch()
    assert not holds_nothing(folder)


@pytest.mark.parametrize("hold", [locked_file, locked_folder])
def test_the_lock_dies_with_its_owner(tmp_path, hold):
    code = (
        f"import sys; from audiollm.data.files.lock import *; lock = {hold.__name__}(sys.argv[1]); lock.__enter__(); "
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with pytest.raises(FileInUseError):
            hold(tmp_path / "out").__enter__()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    with hold(tmp_path / "out"):
        pass


def test_the_folder_of_a_run_is_held_by_the_process_that_is_named_and_free_when_that_is_killed(tmp_path):
    code = (
        "import sys; from audiollm.data.files.lock import *; lock = held_run_folder(sys.argv[1]); lock.__enter__(); "
        "print(flush=True); sys.stdin.read()"
    )
    run = tmp_path / "runs" / "one"
    with subprocess.Popen([sys.executable, "-c", code, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        assert not run.exists()  # what holds it lies beside it
        with pytest.raises(
            FileInUseError, match=rf"one is in use by another run \(process {owner.pid} on .*output_dir"
        ):
            held_run_folder(run).__enter__()
        with held_run_folder(tmp_path / "runs" / "two"):
            pass
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert (run.parent / ".one.owner.lock").exists()  # what it left says nothing
    with held_run_folder(run):
        pass
    assert not (run.parent / ".one.owner.lock").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
@pytest.mark.parametrize("hold", [locked_file, locked_folder, held_run_folder])
@pytest.mark.parametrize("place", ["/proc/x", "/proc/x/y"])
def test_a_place_that_takes_no_files_is_not_told_as_one_in_use(hold, place):
    with pytest.raises(UnwritableError, match=f"^{place} cannot be written: [^:]*; choose another place$"):
        hold(place).__enter__()
