"""The second stage: what the text LLM writes of a clip is rewarded, and codes and LLM learn of it, through trl."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from audiollm.chat.segments import TextSegment
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.training.alignment.methods import Passes, Policy, load_trl, policy_trainer
from audiollm.training.alignment.rewards.base import Answer
from audiollm.training.alignment.rewards.registry import make_rewards
from audiollm.training.alignment.running import open_trl_folder, run_trl, updates_of_run
from audiollm.training.audio_llm.config import even_accumulation
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.run import RunSummary
from audiollm.training.loop.stopping import StopRequest

from .analyst import Analyst
from .config import ReasoningCodecTrainingConfig
from .hearing import Heard, Hearing, num_codes_of
from .objective import train_only_reasoning
from .opening import open_codec
from .policy import HeardEmbedding, TrainedWeightsAlone, plain_llm
from .records import AnalysisRecords, units_of
from .supervised_stage import check_room, open_analyst, read_records, save_reasoning

TRAINING, HELD_OUT = "t", "e"
_OF_HELD_OUT = 1  # clips of training data have even numbers in the embedding, held-out ones odd ones


def train_by_rewards(
    accelerator: Accelerator, config: ReasoningCodecTrainingConfig, stop: StopRequest, next_command: Sequence[str]
) -> RunSummary:
    """Runs ``stage: grpo``; every process of a launch calls it.

    Args:
        accelerator: the run's processes.
        config: its settings.
        stop: what listens for a request to stop.
        next_command: what uses the trained codec.

    Raises:
        ImportError: trl is not installed.
        ValueError: if the codec has not been through the first stage, or that has left no analyst.
    """
    load_trl()
    checkpoint = open_trl_folder(accelerator, config)
    codec = open_codec(config).to(accelerator.device)
    analyst = open_analyst(config, codec.config.size).to(accelerator.device)
    records, held_out = read_records(accelerator, config, analyst)
    for one in (records, held_out):
        if one is not None:
            check_room(one, analyst, codec)
    task = _Task(config, codec, analyst, records, held_out)
    assert config.grpo is not None  # the config has checked
    total_steps = updates_of_run(
        config, len(task.units[TRAINING]), config.global_batch_size // config.grpo.num_generations
    )
    run, summary = run_trl(
        accelerator,
        config,
        stop,
        checkpoint=checkpoint,
        make=lambda callbacks: task.trainer(total_steps, accelerator.num_processes, callbacks),
        save=lambda _: task.save(accelerator),
        total_steps=total_steps,
        data_metadata=records.facts(),
        num_records=len(task.units[TRAINING]),
    )
    assert config.codec is not None  # the config has checked
    run.write_card(
        summary.model_folder, "audio_tokenizer", [Base("codec", config.codec)], step=total_steps,
        evaluation_data={} if held_out is None else held_out.facts(),
    )  # fmt: skip
    return run.finish(summary, next_command)


class _NoSounds:
    """In place of answers made audible: analyses are text."""

    def check(self) -> None:
        raise ValueError("grpo.rewards: one of them listens, and analyses are text; take sap, judge, correct or length")


class _Task:
    """Clips, what is asked of them, and who answers.

    Args:
        config: the run, with ``grpo``.
        codec: its reasoning branch is trained.
        analyst: answers.
        records: to train on.
        held_out: to evaluate on, if any.
    """

    def __init__(
        self,
        config: ReasoningCodecTrainingConfig,
        codec: ReasoningCodec,
        analyst: Analyst,
        records: AnalysisRecords,
        held_out: AnalysisRecords | None,
    ) -> None:
        self._config, self._codec, self._analyst = config, codec, analyst
        self._records = {TRAINING: records} | ({} if held_out is None else {HELD_OUT: held_out})
        self.units = {role: units_of(one, range(len(one))) for role, one in self._records.items()}
        self._hearing = Hearing(codec, config.analysis.feature_megabytes * 2**20)
        train_only_reasoning(codec)
        self._llm = plain_llm(analyst)
        # trl writes ids of its own into them.
        self._settings_before = copy.deepcopy((self._llm.config, self._llm.generation_config))
        self._text = self._llm.get_input_embeddings()
        self._embedding = HeardEmbedding(self._text, codec.reasoning, analyst.projection, self._hear)
        self._llm.set_input_embeddings(self._embedding)

    def trainer(self, total_steps: int, num_processes: int, callbacks: list[Any]) -> Any:
        """trl's trainer of it."""
        settings = self._config.grpo
        assert settings is not None
        sounds: Any = _NoSounds()
        rewards = make_rewards([(reward.name, reward.options) for reward in settings.rewards], sounds)
        text_tokenizer = copy.deepcopy(self._analyst.text_tokenizer)
        text_tokenizer.padding_side = "left"
        policy = Policy(
            model=self._llm,
            text_tokenizer=text_tokenizer,
            token_ids=lambda names: [self._prompt(name) for name in names],
            answer=self._answer,
            suppressed=range(len(text_tokenizer), self._text.num_embeddings),
            trainer=(TrainedWeightsAlone,),
        )
        passes = Passes(
            self._config.micro_batch_size,
            even_accumulation(self._config, num_processes),
            self._config.analysis.gradient_checkpointing,
        )
        names, eval_names = ([f"{role}{number}" for number in range(len(self.units.get(role, ())))] for role in "te")
        return policy_trainer(
            self._config, settings, policy, names, eval_names or None, rewards, total_steps, passes, callbacks
        )

    def save(self, accelerator: Accelerator) -> Path:
        """Writes codec and analyst with what has been trained."""
        self._llm.set_input_embeddings(self._text)
        self._llm.config, self._llm.generation_config = self._settings_before
        folder = Path(self._config.output_dir) / MODEL_FOLDER
        if accelerator.is_main_process:
            save_reasoning(self._codec, self._analyst, folder, "grpo")
        accelerator.wait_for_everyone()
        return folder

    def _unit(self, name: str) -> tuple[AnalysisRecords, int, str]:
        role = name[0]
        index, task = self.units[role][int(name[1:])]
        return self._records[role], index, task

    def _prompt(self, name: str) -> list[int]:
        records, index, task = self._unit(name)
        before, behind = self._analyst.request_ids(records.request(index, task))
        clip = 2 * index + (_OF_HELD_OUT if name[0] == HELD_OUT else 0)
        num_codes = num_codes_of(records.num_samples(index), self._codec)
        return [*before, *self._embedding.code_ids(clip, num_codes), *behind]

    def _hear(self, clips: Sequence[int]) -> tuple[list[Heard], list[int]]:
        waveforms = [self._records[HELD_OUT if clip % 2 else TRAINING].waveform(clip // 2) for clip in clips]
        heard = self._hearing(waveforms, clips)
        return heard, [num_codes_of(len(waveform), self._codec) for waveform in waveforms]

    def _answer(self, name: str, token_ids: Sequence[int]) -> Answer:
        records, index, task = self._unit(name)
        text = self._analyst.text_of(token_ids)
        return Answer(
            conversation=records.conversation(index, task),
            token_ids=list(token_ids),
            segments=[TextSegment(text, list(token_ids))],
            num_reference_tokens=len(self._analyst.encode(task, records.targets(index).texts[task])),
            is_cut=not token_ids or token_ids[-1] != self._analyst.end_id,
        )
