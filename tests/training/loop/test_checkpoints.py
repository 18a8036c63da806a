from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from audiollm.training.loop.checkpoints import (
    Checkpoints,
    CheckpointState,
    check_identity,
    differences,
    find_checkpoint,
    load,
    random_state,
    restore_random_state,
    run_identity,
)
from audiollm.training.loop.errors import ResumeError
from audiollm.training.loop.record import config_as_json
from audiollm.training.loop.stopping import RunStoppedError


class OneProcess:
    """What Checkpoints needs of an accelerator, without a process group."""

    distributed_type = "NO"
    is_main_process = True
    process_index = 0
    num_processes = 1
    device = torch.device("cpu")

    def wait_for_everyone(self) -> None:
        pass

    def unwrap_model(self, model):
        return model


def save(checkpoints: Checkpoints, step: int) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints.save(OneProcess(), model, optimizer, CheckpointState(step, {}), {"config.json": {"step": step}})


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_extras_are_saved_and_restored_beside_the_weights(tmp_path):
    model, other = torch.nn.Linear(2, 2), torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    folder = checkpoints.save(OneProcess(), model, optimizer, CheckpointState(1, {}), {}, {"other": other})
    fresh, restored = torch.nn.Linear(2, 2), torch.nn.Linear(3, 1)
    load(OneProcess(), fresh, torch.optim.AdamW(fresh.parameters()), folder, {"other": restored})
    assert torch.equal(fresh.weight, model.weight)
    assert torch.equal(restored.weight, other.weight)


def test_settings_inside_a_section_may_change_by_their_full_name():
    identity = run_identity({"flow": {"eval_steps": 4, "ema_decay": 0.9}, "eval_steps": 1})
    assert identity == {"flow.ema_decay": 0.9, "eval_steps": 1}
    # Checkpoints from before such a setting was let go still resume.
    assert differences({"flow.eval_steps": 10, "flow.ema_decay": 0.9}, {"flow.ema_decay": 0.9}) == []


def test_the_newest_are_kept_and_latest_names_the_last(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (1, 2, 3):
        save(checkpoints, step)
    assert names(checkpoints) == ["latest", "step_000002", "step_000003"]
    assert checkpoints.latest().name == "step_000003"


def test_newest_means_saved_last_not_the_highest_step(tmp_path):
    """After resuming from step 1, the checkpoints of the abandoned branch go first."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (1, 8, 9):
        save(checkpoints, step)
    save(checkpoints, 2)
    assert names(checkpoints) == ["latest", "step_000002", "step_000009"]
    assert checkpoints.latest().name == "step_000002"


def test_pruning_leaves_what_no_run_wrote(tmp_path):
    """Copies under other names or other steps, folders and files of users, links."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1)
    kept = ["step_000001_best", "step_000009", "step_best", "step_000007", "step_000008", "notes.txt", "step_000006"]
    for name in kept[:3]:
        shutil.copytree(tmp_path / "step_000001", tmp_path / name)
    (tmp_path / kept[3]).mkdir()
    (tmp_path / kept[4]).mkdir()
    (tmp_path / kept[4] / "checkpoint.json").write_text("[" * 100_000)
    (tmp_path / kept[5]).write_text("mine")
    (tmp_path / kept[6]).symlink_to(tmp_path / "step_000009")
    for step in (2, 3):
        save(checkpoints, step)
    assert names(checkpoints) == sorted(["latest", "step_000003", *kept])


def test_latest_is_no_link_and_shows_nothing_of_other_files(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    save(checkpoints, 1)
    latest = tmp_path / "checkpoints" / "latest"
    (tmp_path / "secret").write_text("secret " * 1000)
    latest.unlink()
    latest.symlink_to(tmp_path / "secret")
    with pytest.raises(ResumeError, match=r"is a link.*--resume") as error:
        checkpoints.latest()
    assert "secret secret" not in str(error.value)
    latest.unlink()
    latest.write_text("x" * 100_000)
    with pytest.raises(ResumeError, match="latest says") as error:
        checkpoints.latest()
    assert len(str(error.value)) < 1000


def test_a_step_saved_twice_is_replaced(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    save(checkpoints, 4)
    (checkpoints.folder / "step_000004" / "old").touch()
    save(checkpoints, 4)
    assert names(checkpoints) == ["latest", "step_000004"]
    assert not (checkpoints.folder / "step_000004" / "old").exists()


def test_debris_of_a_killed_save_is_ignored_and_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    save(checkpoints, 1)
    (checkpoints.folder / ".step_000002.tmp").mkdir()
    assert checkpoints.latest().name == "step_000001"
    save(checkpoints, 3)
    assert names(checkpoints) == ["latest", "step_000001", "step_000003"]


def in_child(happens: Callable[[int], object], folder: Path, function: Callable[[], object]) -> int:
    """Runs a function in a child, in which something happens before each step that changes the folder; its status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    torch.set_num_threads(1)  # the parent's threads are not here
    steps = itertools.count(1)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod") and "checkpoints" in str(
            arguments
        ):
            happens(next(steps))

    sys.addaudithook(watch)
    try:
        function()
    except OSError as error:
        os._exit(1 if "\n" not in str(error) and str(folder) in str(error) else 2)
    except BaseException:
        os._exit(3)
    os._exit(0)


def is_whole(checkpoint: Path) -> bool:
    model = torch.nn.Linear(2, 2)
    load(OneProcess(), model, torch.optim.AdamW(model.parameters()), checkpoint)
    return True


def save_three_and_sweep(tmp_path: Path, happens_at: Callable[[int], Callable[[int], object]]) -> list[int]:
    """Spoils the third saving, which prunes too, at its first step, its second and so on; statuses of the children."""
    statuses = []
    for step in (1, 2):
        save(Checkpoints(tmp_path / "0" / "checkpoints", keep=2), step)
    for number in itertools.count(1):
        checkpoints = Checkpoints(tmp_path / str(number) / "checkpoints", keep=2)
        shutil.copytree(tmp_path / "0", tmp_path / str(number))
        statuses.append(in_child(happens_at(number), checkpoints.folder, lambda of=checkpoints: save(of, 3)))
        assert checkpoints.latest().name in ("step_000002", "step_000003")
        whole = [path for path in checkpoints.folder.glob("step_*") if is_whole(path)]
        assert len(whole) >= 2
        save(checkpoints, 4)  # the run goes on, and removes what was left
        assert len(names(checkpoints)) == 3
        assert checkpoints.latest().name == "step_000004"
        assert all(is_whole(path) for path in checkpoints.folder.glob("step_*"))
        if statuses[-1] == 0:
            return statuses


@pytest.fixture
def unflushed(monkeypatch):
    """Waiting for the disk is no part of what is tried, and most of the time that it takes."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_killed_at_any_step_of_saving_and_pruning_two_whole_checkpoints_are_there(tmp_path, unflushed):
    def kill_at(number: int) -> Callable[[int], object]:
        return lambda step: step == number and os.kill(os.getpid(), signal.SIGKILL)

    *killed, last = save_three_and_sweep(tmp_path, kill_at)
    assert set(killed) == {-signal.SIGKILL}
    assert (len(killed) > 20, last) == (True, 0)


@pytest.mark.parametrize("number_of_error", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_fails_at_any_step_is_one_message_and_leaves_two_whole_checkpoints(
    tmp_path, number_of_error, unflushed
):
    def fail_from(number: int) -> Callable[[int], object]:
        def fail(step: int) -> None:
            if step == number:
                raise OSError(number_of_error, os.strerror(number_of_error), str(tmp_path))

        return fail

    *failed, last = save_three_and_sweep(tmp_path, fail_from)
    assert set(failed) == {1}
    assert (len(failed) > 20, last) == (True, 0)


def test_latest_falls_back_when_its_folder_is_gone(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    assert checkpoints.latest() is None
    save(checkpoints, 1)
    save(checkpoints, 2)
    (checkpoints.folder / "step_000002" / "checkpoint.json").unlink()
    assert checkpoints.latest().name == "step_000001"


def test_a_named_checkpoint_must_exist(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    save(checkpoints, 1)
    named = checkpoints.folder / "step_000001"
    assert find_checkpoint(str(named), checkpoints) == named
    assert find_checkpoint(None, checkpoints) is None
    with pytest.raises(ResumeError, match=r"no checkpoint there"):
        find_checkpoint(str(checkpoints.folder), checkpoints)


def test_identity_flattens_settings_and_leaves_out_what_may_change():
    config = {"lora": {"r": 4, "target_modules": ["q_proj"]}, "seed": 1, "log_every": 5, "output_dir": "a"}
    identity = run_identity(config, launch={"mode": "ddp"})
    assert identity == {"lora.r": 4, "lora.target_modules": ["q_proj"], "seed": 1, "launch.mode": "ddp"}


def test_differences_name_what_changed_appeared_and_went():
    saved, current = {"seed": 1, "lora.r": 4}, {"seed": 2, "lora": None}
    assert differences(saved, current) == ["seed: 1 → 2", "lora.r: 4 → absent", "lora: absent → None"]
    assert differences(saved, dict(saved)) == []


@dataclass(frozen=True)
class Section:
    """Settings of a part of a run, one of which came later."""

    size: int = 16
    later: float = 0.5


@dataclass(frozen=True)
class Settings:
    """Settings of a run, most of which came later than its checkpoint."""

    seed: int = 0
    order: str = "flat"
    betas: tuple[float, ...] = (0.9, 0.99)
    section: Section = field(default_factory=Section)
    optional: Section | None = None


OLD = {"seed": 1, "section.size": 16}


@pytest.mark.parametrize(
    ("saved", "changes", "refused"),
    [
        (OLD, {}, None),  # all that is new is at its default
        ({"seed": 1}, {}, None),  # a whole section of it
        (OLD, {"order": "delay"}, "order: absent → delay"),
        (OLD, {"betas": (0.8, 0.99)}, "betas: absent"),
        (OLD, {"section": Section(later=1.0)}, r"section\.later: absent → 1\.0"),
        (OLD, {"section": Section(size=8)}, r"section\.size: 16 → 8"),
        # Settings at their defaults are no setting at its default where the default is to have none of them.
        (OLD, {"optional": Section()}, r"optional\.size: absent → 16"),
        (OLD | {"optional": None}, {"optional": Section()}, "optional: None → absent"),
        (OLD | {"optional.size": 16}, {"optional": Section()}, None),
        (OLD | {"optional.size": 16}, {}, r"optional\.size: 16 → absent"),
        (OLD | {"gone": 3}, {}, "gone: 3 → absent"),
    ],
)
def test_a_run_older_than_a_setting_goes_on_where_that_is_at_its_default(tmp_path, saved, changes, refused):
    config = Settings(**({"seed": 1} | changes))
    identity = run_identity(config_as_json(config), total_steps=5)
    state = CheckpointState(3, saved | {"total_steps": 5})
    if refused is None:
        check_identity(tmp_path, state, identity, config)
        check_identity(tmp_path, CheckpointState(5, state.identity), identity | {"total_steps": 9}, config)
        return
    with pytest.raises(ResumeError, match=refused):
        check_identity(tmp_path, state, identity, config)


def test_every_generator_continues_where_it_was(tmp_path):
    torch.save(random_state(), tmp_path / "state.pt")
    expected = (random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(0, 1), np.random.randn())
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(0, 1), np.random.randn()) == expected


def test_latest_is_the_newest_where_nothing_names_it(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    save(checkpoints, 2)
    save(checkpoints, 3)
    (checkpoints.folder / "latest").unlink()
    assert checkpoints.latest().name == "step_000003"
    assert "is not there: going on from step_000003" in caplog.text


def test_a_run_that_is_stopped_while_it_saves_says_that_and_not_that_it_could_not_write(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    save(checkpoints, 1)
    told = "stopped at once"

    def stop(*_: object, **__: object) -> None:
        raise RunStoppedError(told)

    for name in ("save_file", "put_in_place", "open_and_flush"):
        with monkeypatch.context() as patch:
            patch.setattr(f"audiollm.training.loop.checkpoints.{name}", stop)
            with pytest.raises(RunStoppedError) as raised:
                save(checkpoints, 2)
            assert str(raised.value) == told
        assert checkpoints.latest().name == "step_000001"
    save(checkpoints, 2)
    assert names(checkpoints) == ["latest", "step_000001", "step_000002"]
