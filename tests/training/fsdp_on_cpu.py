"""Fine-tuning under FSDP2 without a GPU, where accelerate would leave FSDP out: its state is told that it is on.

ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 tests/training/fsdp_on_cpu.py --config …
"""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType

from audiollm.program import run_program
from audiollm.training.audio_llm.config import SFTConfig
from audiollm.training.loop import launch
from audiollm.training.sft import train


def sharding_accelerator(**settings: Any) -> Accelerator:
    """What `Accelerator` is on GPUs with ``training/configs/accelerate/fsdp2.yaml``."""
    accelerator = Accelerator(**settings)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", state_dict_type="FULL_STATE_DICT"
    )
    accelerator.state.fsdp_plugin = plugin
    states: Any = (accelerator.state, accelerator.state._shared_state, PartialState._shared_state)
    accelerator.state.distributed_type = DistributedType.FSDP
    for shared in states[1:]:
        shared["distributed_type"] = DistributedType.FSDP
        shared["fsdp_plugin"] = plugin
    return accelerator


if __name__ == "__main__":
    launch.Accelerator = sharding_accelerator  # type: ignore[assignment, misc]
    run_program(SFTConfig, train, name="sft")
