"""The first stage: a text LLM learns to write what is heard, from reasoning codes that learn to be understood.

The loss belongs to the whole update: cross-entropy over all its tokens to be written, plus commitment over all its
codes. So neither the number of processes nor the size of a pass changes it.
"""
# Shapes: K codebooks, N samples.

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from audiollm.data.files.atomic import atomic_folder
from audiollm.tokenizer.reasoningcodec.configuration import SAMPLE_RATE
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.training.audio_tokenizer.monitor import CodebookMonitors
from audiollm.training.decoder.base import clip_gradients
from audiollm.training.loop.batches import DataOrder, share_of_process, updates_of_epochs
from audiollm.training.loop.errors import DataError
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import make_optimizer, set_learning_rates

from .analyst import ANALYST_FOLDER, Analyst, make_analyst
from .config import ReasoningCodecTrainingConfig
from .evaluation import evaluate_analyses
from .hearing import Hearing, num_codes_of
from .objective import AnalysisObjective, AnalysisOutput, Request, losses_of, train_only_reasoning
from .records import ANALYSES, AnalysisRecords
from .stage_trainer import StageRun, StageTrainer, update_codebooks
from .stages import FIRST_STAGE

CODEC_PART, LLM_PART = "codec", "llm"
ADVICE = "lower learning_rate, raise global_batch_size or analysis.commitment_weight, or use a smaller sizes.quantizer"
_LISTED = 20


@dataclass(frozen=True)
class AnalysisPass:
    """Clips of one forward pass, and what is to be written of them."""

    indices: list[int]
    ids: list[str]
    tasks: list[str]
    waveforms: list[Tensor]  # [N] each
    requests: list[Request]
    answers: list[list[int]]
    positions: Tensor  # [B] int64, in the update


@dataclass(frozen=True)
class _Counts:
    """What an update of all processes consists of."""

    clips: int
    targets: int
    codes: int
    seconds: float


def make_supervised_trainer(run: StageRun) -> StageTrainer:
    """The trainer of ``stage: supervised``: reads the LLM and the records.

    Raises:
        DataError: listing the records that cannot be trained on.
        ValueError: if the text LLM is of another family, or there are fewer clips in an update than processes.
    """
    analyst = open_analyst(run.config, run.codec.config.size)
    return SupervisedTrainer(run, analyst, *read_records(run.accelerator, run.config, analyst))


def open_analyst(config: ReasoningCodecTrainingConfig, size: int) -> Analyst:
    """A new analyst around ``llm``, or the one that a run has left.

    Raises:
        ValueError: if the text LLM is of another family, or the run has left none.
    """
    settings = config.analysis
    if config.llm is not None:
        return make_analyst(
            config.llm, size, lora=settings.lora, dtype=settings.dtype,
            gradient_checkpointing=settings.gradient_checkpointing,
        )  # fmt: skip
    assert config.codec is not None  # the config has checked
    folder = Path(config.codec) / ANALYST_FOLDER
    if not folder.is_dir():
        raise ValueError(
            f"codec: {config.codec} has no {ANALYST_FOLDER}/, the text LLM that the first stage leaves beside a codec: "
            f"name the folder of its run. It is made by\n  {FIRST_STAGE}"
        )
    analyst = Analyst.from_pretrained(
        folder, dtype=settings.dtype, is_trainable=True, gradient_checkpointing=settings.gradient_checkpointing
    )
    if analyst.projection.in_features != size:
        raise ValueError(
            f"{folder} reads vectors of {analyst.projection.in_features} numbers, and the codec has {size}"
        )
    return analyst


def read_records(
    accelerator: Accelerator, config: ReasoningCodecTrainingConfig, analyst: Analyst
) -> tuple[AnalysisRecords, AnalysisRecords | None]:
    """Records to train on, and held-out ones; each process checks its share.

    Raises:
        DataError: listing the records that cannot be used.
    """

    def read(source: str, role: str) -> AnalysisRecords:
        records = AnalysisRecords(
            source,
            analyst,
            tasks=dataclasses.asdict(config.analysis.tasks),
            max_seconds=config.max_seconds,
            max_text_tokens=config.analysis.max_text_tokens,
            on_bad=config.on_bad,
            mono=config.mono,
            cache_bytes=config.cache_megabytes * 2**20,
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
            gather=gather_object,
            progress=accelerator.is_main_process,
        )
        if accelerator.is_main_process:
            records.write_skipped(Path(config.output_dir), role)
        return records

    return read(config.train_data, "train"), None if config.eval_data is None else read(config.eval_data, "eval")


class SupervisedTrainer(StageTrainer):
    """Trains reasoning branch, projection and text LLM.

    Args:
        run: its surroundings.
        analyst: the text LLM.
        records: to train on.
        held_out: to evaluate on, if any.

    Raises:
        DataError: listing records that do not fit into the context of the LLM.
        ValueError: if there are fewer clips in an update than processes.
    """

    def __init__(
        self, run: StageRun, analyst: Analyst, records: AnalysisRecords, held_out: AnalysisRecords | None
    ) -> None:
        config, accelerator = run.config, run.accelerator
        self._run, self._records, self._held_out = run, records, held_out
        for one in (records, held_out):
            if one is not None:
                check_room(one, analyst, run.codec)
        self._order = DataOrder(len(records), config.global_batch_size, config.seed)
        if self._order.global_batch_size < accelerator.num_processes:
            raise ValueError(
                f"an update has {self._order.global_batch_size} clips for {accelerator.num_processes} processes: raise "
                "global_batch_size, or start fewer"
            )
        self.total_steps = config.max_steps or updates_of_epochs(
            config.num_epochs or 1.0, len(records), self._order.global_batch_size
        )
        self.codec = run.codec.to(accelerator.device)
        self.analyst = analyst.to(accelerator.device)
        train_only_reasoning(self.codec)
        quantizer = self.codec.reasoning.quantizer.residual
        quantizer.defer_updates()
        self._hearing = Hearing(self.codec, config.analysis.feature_megabytes * 2**20)
        sizes = self.codec.config.group_sizes("reasoning")
        self._monitors = CodebookMonitors(sizes, ADVICE)
        self.extras = {"quantizer": quantizer, "monitors": self._monitors}
        self._objective = AnalysisObjective(self.codec, self.analyst)
        parts = {
            CODEC_PART: [*self.codec.reasoning.parameters(), *self.analyst.projection.parameters()],
            LLM_PART: self.analyst.llm.parameters(),
        }
        self._peaks = {
            CODEC_PART: config.learning_rate,
            LLM_PART: config.analysis.llm_learning_rate or config.learning_rate,
        }
        self.model, self.optimizer = accelerator.prepare(
            self._objective, make_optimizer(self._objective, config, accelerator.device, parts)
        )
        self.model.train()
        self.data_metadata = records.facts()
        self.held_out_metadata = {} if held_out is None else held_out.facts()

    def epoch(self, step: int) -> float:
        return self._order.epoch(step)

    # ----------------------------------------------------------------- updates

    def batch(self, step: int) -> list[AnalysisPass]:
        """This process's clips of an update, those of similar length together."""
        accelerator, config = self._run.accelerator, self._run.config
        clips = self._order.batch(step)
        mine = share_of_process(list(range(len(clips))), accelerator.process_index, accelerator.num_processes)
        # What is computed costs less so; the loss belongs to the update, so that the order within it is free.
        mine.sort(key=lambda position: (self._records.num_samples(clips[position]), position))
        size = config.micro_batch_size
        return [self._pass(step, clips, mine[start : start + size]) for start in range(0, len(mine), size)]

    def _pass(self, step: int, clips: Sequence[int], positions: Sequence[int]) -> AnalysisPass:
        examples = []
        for position in positions:
            # Of this very place: an update may straddle the end of an epoch.
            epoch = ((step - 1) * self._order.global_batch_size + position) // len(self._records)
            examples.append(self._records.example(clips[position], epoch, self._run.config.seed))
        return AnalysisPass(
            indices=[one.index for one in examples],
            ids=[one.id for one in examples],
            tasks=[one.task for one in examples],
            waveforms=[one.waveform for one in examples],
            requests=[self.analyst.request_ids(self._records.request(one.index, one.task)) for one in examples],
            answers=[one.token_ids for one in examples],
            positions=torch.tensor(list(positions)),
        )

    def update(self, step: int, batch: list[AnalysisPass]) -> dict[str, Any]:
        accelerator, config = self._run.accelerator, self._run.config
        rates = set_learning_rates(self.optimizer, step, self.total_steps, config, self._peaks)
        counts = self._count(batch)
        num_codebooks = len(self.codec.reasoning.quantizer)
        text_sums = torch.zeros(len(ANALYSES), 2, dtype=torch.float64)  # loss and tokens by task
        commitment_sums = torch.zeros(num_codebooks, dtype=torch.float64)
        by_pass: list[tuple[list[str], Tensor]] = []
        for number, one in enumerate(batch, start=1):
            num_codes = self._num_codes(one)
            with nullcontext() if number == len(batch) else accelerator.no_sync(self.model):
                heard = self._hearing(one.waveforms, one.indices)
                output: AnalysisOutput = self.model(
                    heard, num_codes, one.requests, one.answers, one.positions.to(accelerator.device)
                )
                assert output.commitments is not None
                share = sum(num_codes) / counts.codes
                loss = output.text_losses.sum() / counts.targets
                loss = loss + config.analysis.commitment_weight * share * output.commitments.mean()
                # Gradients are averaged over the processes.
                accelerator.backward(loss * accelerator.num_processes)
            by_pass.append((one.ids, loss.detach()))
            commitment_sums += share * output.commitments.detach().double().cpu()
            for task, answer, total in zip(one.tasks, one.answers, output.text_losses.tolist(), strict=True):
                text_sums[ANALYSES.index(task)] += torch.tensor([total, len(answer)], dtype=torch.float64)
        sums = torch.cat([text_sums.flatten(), commitment_sums]).to(accelerator.device)
        text, commitment = accelerator.reduce(sums, "sum").cpu().split([text_sums.numel(), num_codebooks])
        line = losses_of(text.view_as(text_sums), counts.targets)
        line["commitment"] = float(commitment.mean())
        line["loss"] = line["text_loss"] + config.analysis.commitment_weight * line["commitment"]
        stop_unless_finite(accelerator, config, step, "loss", line["loss"], by_pass)
        norm = clip_gradients(accelerator, self.model, config)
        stop_unless_finite(accelerator, config, step, "gradient norm", norm, by_pass)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {
            **line,
            **update_codebooks([self.codec.reasoning.quantizer.residual]),
            "learning_rates": rates,
            "grad_norm": norm,
            "num_clips": counts.clips,
            "num_targets": counts.targets,
            "num_codes": counts.codes,
            "audio_seconds": round(counts.seconds, 3),
        }

    def _num_codes(self, one: AnalysisPass) -> list[int]:
        return [num_codes_of(len(waveform), self.codec) for waveform in one.waveforms]

    def _count(self, batch: Sequence[AnalysisPass]) -> _Counts:
        """Counted before the first pass, as its gradients are divided by it."""
        rows = [
            [
                len(one.ids),
                sum(len(answer) for answer in one.answers),
                sum(self._num_codes(one)),
                sum(len(waveform) for waveform in one.waveforms) / SAMPLE_RATE,
            ]
            for one in batch
        ]
        total = torch.tensor(rows, dtype=torch.float64).sum(dim=0)
        clips, targets, codes, seconds = self._run.accelerator.reduce(
            total.to(self._run.accelerator.device), "sum"
        ).tolist()
        return _Counts(round(clips), round(targets), round(codes), seconds)

    def alarms(self, line: Mapping[str, Any]) -> list[str]:
        return self._monitors.update(line) if line["event"] == "train" else []

    # -------------------------------------------------------------- evaluation

    def evaluate(self, step: int, folder: Path) -> dict[str, Any]:
        assert self._held_out is not None
        return evaluate_analyses(
            self._run.accelerator,
            self._run.config,
            self.codec,
            self._objective,
            self._hearing,
            self._held_out,
            step,
            folder,
        )

    def save(self, folder: Path) -> None:
        if self._run.accelerator.is_main_process:
            save_reasoning(self.codec, self.analyst, folder, "supervised")
        self._run.accelerator.wait_for_everyone()


def save_reasoning(codec: ReasoningCodec, analyst: Analyst, folder: Path, stage: str) -> None:
    """Writes the codec, which knows now what it has been through, and the analyst beside it."""
    codec.config = dataclasses.replace(codec.config, trained_stage=stage)
    with atomic_folder(folder) as temporary:
        codec.save_pretrained(temporary)
    with atomic_folder(folder.with_name(ANALYST_FOLDER)) as temporary:
        analyst.save_pretrained(temporary)


def check_room(records: AnalysisRecords, analyst: Analyst, codec: ReasoningCodec) -> None:
    """Refuses records that do not fit into the context of the LLM.

    Raises:
        DataError: listing them.
    """
    problems = []
    for index in range(len(records)):
        texts, num_codes = records.targets(index).texts, num_codes_of(records.num_samples(index), codec)
        for task in records.tasks(index):
            before, behind = analyst.request_ids(records.request(index, task))
            length = len(before) + num_codes + len(behind) + len(analyst.encode(task, texts[task]))
            if length > analyst.context_length:
                problems.append(f"  {records.where(index)}: {task}: {length} positions")
    if problems:
        more = [f"  … and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise DataError(
            "\n".join(
                [
                    f"{records.name}: codes and texts of these records do not fit into the {analyst.context_length} "
                    f"positions of {analyst.source}; leave them out, or lower max_seconds or analysis.max_text_tokens:",
                    *problems[:_LISTED],
                    *more,
                ]
            )
        )
