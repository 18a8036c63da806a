"""Starts the Accelerator, and refuses the launches that would silently run as something else.

``accelerate`` falls back without an error: ``--cpu --num_processes 2`` starts one process, ``--multi_gpu`` on a machine
without a GPU starts several that do not know of each other, and ``ACCELERATE_USE_CPU`` turns DeepSpeed off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
)
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from .config import OPTIMIZERS_OF_WHOLE_MATRICES, RunConfig
from .errors import LaunchError
from .record import check_trackers

SUPPORTED = (
    DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.DEEPSPEED,
    DistributedType.FSDP,
)  # fmt: skip


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1", "yes", "on")


def _world_size_asked_for(config: RunConfig) -> int:
    """Number of processes that the launcher or the config asks for.

    Raises:
        LaunchError: if the two disagree, or the launcher dropped the number it was given.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    # The simple launcher of accelerate exports an address for `--num_processes 2`, then starts one process.
    dropped = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ
    if "WORLD_SIZE" not in os.environ and dropped:
        raise LaunchError(
            "accelerate launch was asked for several processes but started one (it does so for --cpu and MULTI_CPU); "
            "use --config_file training/configs/accelerate/ddp.yaml, which also works without a GPU"
        )
    if config.num_processes is not None and config.num_processes != world_size:
        raise LaunchError(
            f"num_processes={config.num_processes} in the config, but {world_size} were started; use accelerate "
            f"launch --config_file training/configs/accelerate/ddp.yaml --num_processes {config.num_processes}"
        )
    return world_size


def start_accumulating(
    config: RunConfig,
    passes_per_update: Callable[[int], int],
    *,
    micro_batch_size: int,
    mixed_precision: str,
    max_zero_stage: int = 3,
    allows_fsdp: bool = False,
    broadcast_buffers: bool = True,
) -> Accelerator:
    """Creates the process group and checks that it is the one that was asked for.

    Args:
        config: the run; its clipping is handed to DeepSpeed.
        passes_per_update: from the number of processes to the forward passes that each makes for an update.
        micro_batch_size: examples per process in one forward pass, for DeepSpeed.
        mixed_precision: ``no`` or ``bf16``, as accelerate and DeepSpeed understand it.
        max_zero_stage: of DeepSpeed; 2 for a model that every process must hold whole.
        allows_fsdp: whether FSDP2 may shard the weights.
        broadcast_buffers: whether plain data parallelism copies buffers from the first process at every pass.

    Raises:
        LaunchError: if this process would train alone although others were started, or DeepSpeed or FSDP was asked for
            and is not in use.
        ValueError: if the DeepSpeed file contradicts the config, or a tracker is not installed.
    """
    check_trackers(config.trackers)
    world_size = _world_size_asked_for(config)
    wants_deepspeed = _is_set("ACCELERATE_USE_DEEPSPEED")
    if wants_deepspeed and _is_set("ACCELERATE_USE_CPU"):
        raise LaunchError(
            "ACCELERATE_USE_CPU turns DeepSpeed off: unset it (DeepSpeed finds out by itself that there is no GPU)"
        )
    if not allows_fsdp:
        _refuse_fsdp(f"training/configs/accelerate/zero{max_zero_stage}.yaml")
    has_device = torch.accelerator.is_available()
    if _is_set("ACCELERATE_USE_FSDP") and not has_device:
        raise LaunchError(
            "FSDP was asked for, which accelerate leaves out where there is no GPU: use "
            "training/configs/accelerate/zero3.yaml, which splits the same things on a CPU, too"
        )
    handlers: list[Any] = [DistributedDataParallelKwargs(broadcast_buffers=broadcast_buffers)]
    if wants_deepspeed and not has_device:
        # DeepSpeed would ask for NCCL, which needs GPUs.
        handlers.append(InitProcessGroupKwargs(backend="gloo"))
    accelerator = Accelerator(
        # sync_with_dataloader=False: the end of an epoch must not cut an update short.
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            # adjust_scheduler=False: there is no scheduler; learning rates are a function of the update.
            num_steps=passes_per_update(world_size),
            adjust_scheduler=False,
            sync_with_dataloader=False,
        ),
        mixed_precision=mixed_precision,
        cpu=not has_device and not wants_deepspeed,
        kwargs_handlers=handlers,
    )
    mode = accelerator.distributed_type
    _check_num_processes(accelerator, world_size)
    if wants_deepspeed and mode != DistributedType.DEEPSPEED:
        raise LaunchError(f"DeepSpeed was asked for but accelerate runs {mode.value}; is deepspeed installed?")
    if (_is_set("ACCELERATE_USE_FSDP") or mode == DistributedType.FSDP) and not accelerator.is_fsdp2:
        raise LaunchError(
            f"FSDP2 was asked for but accelerate runs {mode.value}: use training/configs/accelerate/fsdp2.yaml "
            "(fsdp_version: 2)"
        )
    if mode not in SUPPORTED:
        raise LaunchError(f"{mode.value} is not supported: use one of training/configs/accelerate/*.yaml")
    if zero_stage(accelerator) > max_zero_stage:
        raise LaunchError(
            f"ZeRO-{zero_stage(accelerator)} is not supported here: every process holds this model whole; use "
            f"training/configs/accelerate/zero{max_zero_stage}.yaml"
        )
    if config.optimizer in OPTIMIZERS_OF_WHOLE_MATRICES and (zero_stage(accelerator) or splits_weights(accelerator)):
        raise LaunchError(
            f"optimizer: {config.optimizer} looks at whole matrices, which {mode.value} cuts up: use adamw, or "
            "training/configs/accelerate/ddp.yaml"
        )
    _check_shards(accelerator, config)
    if mode == DistributedType.DEEPSPEED:
        _complete_deepspeed_config(accelerator, micro_batch_size, config.max_grad_norm)
    return accelerator


def start_data_parallel(config: RunConfig, *, splits_optimizer: bool = True) -> Accelerator:
    """Creates the process group of a run whose model fits every device: one process, or plain data parallelism.

    The run accumulates gradients itself, in as many passes as each process needs.

    Args:
        config: the run.
        splits_optimizer: whether ``shard_optimizer`` is a setting of such runs, which takes the place of ZeRO.

    Raises:
        LaunchError: if this process would train alone although others were started, DeepSpeed or FSDP was asked for, or
            ``shard_optimizer`` where there is nobody to share with.
        ValueError: if a tracker is not installed.
    """
    check_trackers(config.trackers)
    world_size = _world_size_asked_for(config)
    plain = "training/configs/accelerate/ddp.yaml; this model is small enough for every device to hold it"
    if splits_optimizer:
        plain += ". To split the optimizer's state over the processes, as ZeRO-1 does, add --shard_optimizer true"
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        raise LaunchError(f"DeepSpeed is not supported here: use {plain}")
    _refuse_fsdp(plain)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=not torch.accelerator.is_available())
    _check_num_processes(accelerator, world_size)
    _check_shards(accelerator, config)
    return accelerator


def _refuse_fsdp(instead: str) -> None:
    if _is_set("ACCELERATE_USE_FSDP"):
        raise LaunchError(f"FSDP is not supported here: use {instead}")


def _check_num_processes(accelerator: Accelerator, world_size: int) -> None:
    if accelerator.num_processes != world_size:
        raise LaunchError(
            f"{world_size} processes were started but this one sees {accelerator.num_processes}: each would train "
            "alone; launch with one of training/configs/accelerate/*.yaml"
        )


def _check_shards(accelerator: Accelerator, config: RunConfig) -> None:
    if not config.shard_optimizer:
        return
    if (mode := mode_name(accelerator)) == "single":
        raise LaunchError(
            "shard_optimizer splits the optimizer over processes, and there is one: leave it out, or start several "
            "with training/configs/accelerate/ddp.yaml"
        )
    if mode != "ddp":
        raise LaunchError(
            f"shard_optimizer is for training/configs/accelerate/ddp.yaml: {mode} splits it; leave it out"
        )


def _complete_deepspeed_config(accelerator: Accelerator, micro_batch_size: int, max_grad_norm: float | None) -> None:
    settings = accelerator.state.deepspeed_plugin.deepspeed_config
    wanted = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accelerator.gradient_accumulation_steps,
        # DeepSpeed clips at 1.0 unless told otherwise; 0 is its word for "don't".
        "gradient_clipping": max_grad_norm or 0.0,
    }
    for name, value in wanted.items():
        if settings.get(name, "auto") not in ("auto", value):
            raise ValueError(
                f"the DeepSpeed file sets {name}={settings[name]} but the run's config says {value}: "
                'set it to "auto" in the DeepSpeed file'
            )
        settings[name] = value


def zero_stage(accelerator: Accelerator) -> int:
    """0 without DeepSpeed, else the stage of its optimizer partitioning."""
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        return 0
    return int(accelerator.state.deepspeed_plugin.zero_stage)


def splits_weights(accelerator: Accelerator) -> bool:
    """Whether each process holds a part of every weight, so that all must make each forward pass together."""
    return zero_stage(accelerator) == 3 or accelerator.distributed_type == DistributedType.FSDP


@contextmanager
def gathered_outside_layers(accelerator: Accelerator, prepared: Any) -> Iterator[None]:
    """Inside, parts of a model may be called by themselves, as generating does, also where FSDP2 shards it.

    Its layers gather their weights whenever they are called; those of embeddings, last norm and output layer are
    gathered when the prepared model as a whole is called, and here.

    Args:
        accelerator: the run's accelerator.
        prepared: the prepared model.
    """
    if not accelerator.is_fsdp2:
        yield
        return
    prepared.unshard()
    try:
        yield
    finally:
        prepared.reshard()


@contextmanager
def whole_weights(accelerator: Accelerator) -> Iterator[None]:
    """Inside, transformers loads and makes models in one piece even under ZeRO-3.

    Otherwise it splits them over the processes as they are made, which all processes must then do together and which
    leaves nothing for an extended vocabulary or an adapter to start from. DeepSpeed splits the prepared model.
    """
    if zero_stage(accelerator) != 3:
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(accelerator.state.deepspeed_plugin.dschf)


def mode_name(accelerator: Accelerator) -> str:
    """``single``, ``ddp``, ``zero2``, ``fsdp2`` …: what a checkpoint must be resumed under."""
    if accelerator.is_fsdp2:
        return "fsdp2"
    stage = zero_stage(accelerator)
    if stage:
        return f"zero{stage}"
    return "single" if accelerator.num_processes == 1 else "ddp"


def stop_accelerator(accelerator: Accelerator) -> None:
    """Leaves the process group; call it when no tensor of the run is referenced any more.

    Freed tensors first: gloo's thread may otherwise drop its last one while the interpreter shuts down, and abort.
    """
    accelerator.free_memory()
    accelerator.end_training()
    # The state is global to the process: without this a second run could not choose another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
