"""Files replaced whole or not at all."""

import os

import pytest

from audiollm.data.files.atomic import atomic_write


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
