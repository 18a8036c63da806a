"""One process at a time at an output."""

import signal
import subprocess
import sys

import pytest

from audiollm.data.files.lock import FileInUseError, locked_file, locked_folder


@pytest.mark.parametrize("hold", [locked_file, locked_folder])
def test_a_second_one_is_refused_and_nothing_is_left_behind(tmp_path, hold):
    output = tmp_path / "out"
    with hold(output), pytest.raises(FileInUseError, match=r"out is being written by another process.*, or go away"):
        hold(output, otherwise="go away").__enter__()
    with hold(output):
        pass
    assert [path.name for path in tmp_path.rglob("*") if path != output] == []


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
    assert [path for path in tmp_path.rglob("*") if path.name != "out"] == []
