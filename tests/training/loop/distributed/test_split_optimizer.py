"""An optimizer split over processes, of which there is one here: beside the programs that start two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from audiollm.training.loop.checkpoints import Checkpoints, CheckpointState, load
from audiollm.training.loop.config import SPLIT_OPTIMIZERS
from audiollm.training.loop.errors import LaunchError
from audiollm.training.loop.launch import start_accumulating, start_data_parallel

from ..test_checkpoints import OneProcess
from ..test_optimizer import make, update


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("saves_split", [True, False])
@pytest.mark.parametrize("name", SPLIT_OPTIMIZERS)
def test_split_or_not_an_optimizer_goes_on_from_either_to_the_same_bits(
    make_config: Any, tmp_path: Path, name: Any, saves_split: bool
) -> None:
    saving, going_on = (make_config(optimizer=name, shard_optimizer=split) for split in (saves_split, not saves_split))
    model, optimizer = make(saving)
    for step in range(1, 7):
        update(model, optimizer, saving, step)
        if step == 3:
            extras = {"other_optimizer": optimizer}
            saved = Checkpoints(tmp_path, keep=1).save(
                OneProcess(), model, optimizer, CheckpointState(step, {}), {}, extras
            )
    resumed, other = make(going_on)
    load(OneProcess(), resumed, other, saved, {"other_optimizer": other})
    for step in range(4, 7):
        update(resumed, other, going_on, step)
    for one, another in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, another)


@pytest.mark.parametrize("name", ["muon", "lion"])
def test_optimizers_that_cannot_be_split_are_refused(make_config: Any, name: Any) -> None:
    with pytest.raises(
        ValueError, match=f"shard_optimizer does not split optimizer: {name}: use adamw, adafactor, sgd"
    ):
        make_config(optimizer=name, shard_optimizer=True)


def test_one_process_has_nobody_to_share_with(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(shard_optimizer=True)
    with pytest.raises(LaunchError, match=r"shard_optimizer .*there is one: leave it out, or .*ddp\.yaml"):
        start_data_parallel(config)
    monkeypatch.setattr("audiollm.training.loop.launch.mode_name", lambda accelerator: "zero2")
    with pytest.raises(LaunchError, match=r"shard_optimizer is for .*ddp\.yaml: zero2 splits it"):
        start_accumulating(config, lambda n: 1, micro_batch_size=1, mixed_precision="no")
