"""Damaged, foreign and hostile checkpoints: every one is refused by the name of its file, and nothing in it is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from dataclasses import make_dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audiollm.training.loop.checkpoints import (
    Checkpoints,
    CheckpointState,
    check_identity,
    load,
    random_state,
    read_state,
)
from audiollm.training.loop.ema import ExponentialMovingAverage
from audiollm.training.loop.errors import ResumeError
from audiollm.training.loop.restoring import check_deepspeed_files

from .test_checkpoints import OneProcess

FILES = ("weights.safetensors", "optimizer.pt", "average.pt", "random_00000.pt")


class Payload:
    """Would make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def parts():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer, {"average": ExponentialMovingAverage(model, 0.9)}


def saved(folder: Path) -> Path:
    """Two checkpoints; returns the newer one."""
    model, optimizer, extras = parts()
    checkpoints = Checkpoints(folder / "checkpoints", keep=5)
    for step in (1, 2):
        newest = checkpoints.save(OneProcess(), model, optimizer, CheckpointState(step, {}), {}, extras)
    return newest


def restore(checkpoint: Path) -> None:
    model, optimizer, extras = parts()
    load(OneProcess(), model, optimizer, checkpoint, extras)


def change_tensors(path: Path, change) -> None:
    """Applies a change to every float tensor of more than one number."""

    def changed(value):
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim:
            return change(value)
        if isinstance(value, dict):
            return {name: changed(inner) for name, inner in value.items()}
        return value

    if path.suffix == ".safetensors":
        save_file(changed(load_file(path)), path)
    else:
        torch.save(changed(torch.load(path, weights_only=True)), path)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def compress(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


DAMAGES = {
    "absent": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "text": lambda path: path.write_text("not a checkpoint"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    **{f"cut at {share}": lambda path, share=share: cut(path, share) for share in (0.01, 0.3, 0.6, 0.9, 0.99)},
}


def change_a_number(path: Path) -> None:
    """Changes a bit of a moment, an average or a weight, and nothing else."""
    content = bytearray(path.read_bytes())
    model, optimizer, extras = parts()
    tensors = {
        "weights.safetensors": model.weight,
        "optimizer.pt": optimizer.state_dict()["state"][0]["exp_avg"],
        "average.pt": extras["average"].averages()["weight"],
        "random_00000.pt": random_state()["torch"],
    }
    place = content.find(tensors[path.name].detach().numpy().tobytes()[:16])
    assert place > 0
    content[place] ^= 1
    path.write_bytes(content)


DAMAGES["a bit"] = change_a_number
OBJECTS = {"none": None, "list": [1, 2], "text": "x", "empty": {}, "number": 3, "other": {"state": 1, "averages": 2}}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_so_is_the_checkpoint_before(tmp_path, name, damage):
    checkpoint = saved(tmp_path)
    DAMAGES[damage](checkpoint / name)
    with pytest.raises(ResumeError) as error:
        restore(checkpoint)
    assert name in str(error.value)
    assert f"--resume {checkpoint.parent / 'step_000001'}" in str(error.value)
    restore(checkpoint.parent / "step_000001")


@pytest.mark.parametrize("value", OBJECTS)
@pytest.mark.parametrize("name", FILES[1:])
def test_a_file_of_something_else_is_named(tmp_path, name, value):
    checkpoint = saved(tmp_path)
    torch.save(OBJECTS[value], checkpoint / name)
    with pytest.raises(ResumeError, match=name):
        restore(checkpoint)


@pytest.mark.parametrize("name", FILES[1:])
def test_nothing_in_a_file_is_run(tmp_path, name):
    checkpoint, made = saved(tmp_path), tmp_path / "made"
    for write in (
        lambda path: torch.save(Payload(made), path),
        lambda path: path.write_bytes(pickle.dumps(Payload(made))),
    ):
        write(checkpoint / name)
        with pytest.raises(ResumeError, match=name):
            restore(checkpoint)
        assert not made.exists()


@pytest.mark.parametrize("name", FILES[:3])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor.flatten()[:1].clone(), "instead of"),  # would be broadcast
        (lambda tensor: tensor.new_zeros(*tensor.shape, 2), "instead of"),
        (lambda tensor: torch.full_like(tensor, float("nan")), "NaN or infinity"),
        (lambda tensor: torch.full_like(tensor, float("inf")), "NaN or infinity"),
    ],
    ids=["one number", "another shape", "NaN", "infinity"],
)
def test_other_shapes_and_no_numbers_are_named(tmp_path, name, change, message):
    checkpoint = saved(tmp_path)
    change_tensors(checkpoint / name, change)
    with pytest.raises(ResumeError, match=message) as error:
        restore(checkpoint)
    assert name in str(error.value)


@pytest.mark.parametrize("name", FILES[1:])
def test_files_that_unfold_in_memory_are_refused(tmp_path, name):
    checkpoint = saved(tmp_path)
    shutil.copytree(checkpoint, tmp_path / "copy")
    compress(checkpoint / name)
    with pytest.raises(ResumeError, match="compressed"):
        restore(checkpoint)
    torch.save({"averages": {"weight": torch.zeros(1).expand(3, 2**30)}}, tmp_path / "copy" / name)
    with pytest.raises(ResumeError, match="announces more than it holds"):
        restore(tmp_path / "copy")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", "9" * 5000, "[" * 100_000]
    + [json.dumps({"step": step, "identity": {}}) for step in (0, -1, 1.5, True, None, "2", 10**9)]
    + ['{"step": 2, "identity": []}'],
    ids=range(14),
)
def test_a_damaged_step_or_identity_is_named(tmp_path, content):
    checkpoint = saved(tmp_path)
    (checkpoint / "checkpoint.json").write_text(content)
    with pytest.raises(ResumeError, match=r"checkpoint\.json"):
        read_state(checkpoint)


def test_a_step_beyond_the_run_is_refused(tmp_path):
    with pytest.raises(ResumeError, match="update 9 of a run of 5"):
        check_identity(
            tmp_path / "elsewhere",
            CheckpointState(9, {"total_steps": 5}),
            {"total_steps": 5},
            make_dataclass("Settings", ())(),
        )


@pytest.mark.parametrize("name", ["../../outside", "/etc", "", "step_1", "step_000002/..", "step_000002_best_wer"])
def test_latest_stays_inside(tmp_path, name):
    checkpoint = saved(tmp_path)
    (checkpoint.parent / "latest").write_text(name)
    with pytest.raises(ResumeError, match=r"latest says .*--resume"):
        Checkpoints(checkpoint.parent, keep=2).latest()


def test_only_what_the_run_wrote_is_pruned(tmp_path):
    checkpoint = saved(tmp_path)
    own = checkpoint.parent / "step_000002_best_wer"
    shutil.copytree(checkpoint, own)
    model, optimizer, extras = parts()
    for step in (3, 4):
        Checkpoints(checkpoint.parent, keep=1).save(
            OneProcess(), model, optimizer, CheckpointState(step, {}), {}, extras
        )
    assert sorted(path.name for path in checkpoint.parent.glob("step_*")) == [own.name, "step_000004"]


def test_states_of_deepspeed_are_looked_at_before_they_are_unpickled(tmp_path):
    pytest.importorskip("deepspeed")
    made = tmp_path / "made"
    folder = tmp_path / "deepspeed"
    folder.mkdir()
    torch.save({"module": {"weight": torch.zeros(2)}}, folder / "mp_rank_00_model_states.pt")
    check_deepspeed_files(folder, trusted=False)
    torch.save({"optimizer": Payload(made)}, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    with pytest.raises(ResumeError, match=r"optim_states\.pt .*--trust_checkpoint"):
        check_deepspeed_files(folder, trusted=False)
    assert not made.exists()
    check_deepspeed_files(folder, trusted=True)
