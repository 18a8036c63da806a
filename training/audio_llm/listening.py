"""Held-out records that are answered in sound: the model in training speaks, files are written, judges listen.

The record's own answer is decoded from its codes too, and judged beside: what is lost there no language model brings
back.
"""
# Shapes: T codes of one segment, N samples.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm.contrib.logging import logging_redirect_tqdm

from audiollm.benchmarks.harness.identity import VERDICTS_NAME
from audiollm.benchmarks.harness.pictures import clip_stem, draw_clip
from audiollm.benchmarks.harness.processes import LaunchedProcesses
from audiollm.benchmarks.metrics.seed_tts_wer.pairs import TextPair
from audiollm.benchmarks.speech.judges.judging import NONE, SpeechJudges, SpokenRecording, Verdict, mean_and_count
from audiollm.benchmarks.speech.judges.recognizers import check_recognizer
from audiollm.benchmarks.speech.words import corpus_errors
from audiollm.chat.segments import AudioSegment
from audiollm.data.audio.writing import save_audio
from audiollm.data.conversation.types import AudioPart, Conversation
from audiollm.data.files.atomic import atomic_folder
from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.voices.encoders import check_speaker_encoder
from audiollm.data.voices.speech_records import text_to_be_said
from audiollm.generation.decoding import DecodingSettings, SpeechDecoder
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.checkpoints import random_state, restore_random_state
from audiollm.training.loop.launch import whole_weights

from .config import SFTConfig
from .evaluation import answer_token_ids, draw_records, generate_answers
from .records import EncodedRecords

logger = get_logger(__name__)

EVALUATION_FOLDER = "evaluation"  # in the run's
REFERENCE_FOLDER = "reference"  # in that: the records' own answers, the same at every evaluation
ANSWERS_NAME = "answers.jsonl"


@dataclass(frozen=True, eq=False)
class SpokenAnswer:
    """What the model said in place of a record's own answer.

    Attributes:
        text: what it wrote beside.
        waveform: float32 ``[N]`` on the CPU, the segments one after the other; None if it said nothing.
        is_cut: whether a limit ended the answer, and not the model.
    """

    text: str
    waveform: Tensor | None
    is_cut: bool


class Listener:
    """Has held-out records answered in sound at every evaluation, and listens.

    Decoder and judges are loaded at the first evaluation; that they are there is seen when this is made.

    Args:
        accelerator: the run's accelerator.
        config: its settings.
        audio_llm: the Audio-LLM in training; its audio tokenizer decodes.
        records: the held-out data.
        usable: numbers of the records to choose from.

    Raises:
        ValueError: no record is answered in sound, none of them tells the text that a recognizer should hear, nothing
            decodes codes, or a judge is not to be had.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: SFTConfig,
        audio_llm: AudioLLM,
        records: EncodedRecords,
        usable: Sequence[int],
    ) -> None:
        self._accelerator = accelerator
        self._config = config
        self._audio_llm = audio_llm
        self._records = records
        self._folder = Path(config.output_dir) / EVALUATION_FOLDER
        self._chosen = draw_records(
            records, usable, num_records=config.eval_listen_samples, seed=config.seed, is_wanted=is_answered_in_sound
        )
        if not self._chosen:
            raise ValueError(
                f"eval_listen_samples={config.eval_listen_samples}: no record of {records.name} is answered in sound; "
                "name other eval_data, or leave it out"
            )
        conversations = {index: records.conversations[index] for index in self._chosen}
        self._names = {index: clip_stem(n, one.id) for n, (index, one) in enumerate(conversations.items())}
        self._texts = {index: text_to_be_said(one) for index, one in conversations.items()}
        self._references: dict[int, Tensor] = {}  # made at the first evaluation
        with _same_draws(), whole_weights(accelerator):
            self._check_decoder()
            LaunchedProcesses(accelerator.process_index, accelerator.num_processes).from_main(self._check_judges)
        if accelerator.is_main_process:
            self._say_limits()

    def evaluate(self, model: nn.Module, step: int) -> dict[str, Any]:
        """Speaks, listens, and writes what there is to hear; all processes must call it.

        No draw that training makes afterwards changes by it.

        Args:
            model: the prepared `TargetTokenLoss`.
            step: the update after which it is.

        Returns:
            On the main process figures: ``num_listened`` records, of whose answers ``num_spoken_cut`` were cut and
            ``num_without_sound`` had none; with a recognizer ``spoken_wer`` and ``reference_wer``, over all words of
            records with a text (nothing is heard where there is no sound); with a speaker encoder
            ``spoken_similarity``, a mean. Nothing on the others.
        """
        with _same_draws():
            answers = self._speak(model)
            if not self._references:
                self._write_references()
            return self._listen(answers, step) if self._accelerator.is_main_process else {}

    # Before the first update

    def _check_decoder(self) -> None:
        processor, setting = self._audio_llm.processor, f"eval_listen_samples={self._config.eval_listen_samples}"
        if not processor.has_audio_tokenizer:
            raise ValueError(f"{setting}: the model has no audio tokenizer, so that nothing makes sound of its codes")
        if not processor.audio_tokenizer.can_decode:
            raise ValueError(
                f"{setting}: the model's audio tokenizer has no waveform decoder, so that nothing makes sound of its "
                "codes; use one with a decoder/ folder, or leave it out"
            )

    def _check_judges(self) -> None:
        for name, check in (("eval_asr", check_recognizer), ("eval_similarity", check_speaker_encoder)):
            value = getattr(self._config, name)
            if value is None:
                continue
            try:
                check(value)
            except (ValueError, OSError, ImportError) as error:
                raise ValueError(f"{name}={value}: {error}") from error
        if self._config.eval_asr is not None and not any(self._texts.values()):
            raise ValueError(
                f"eval_asr={self._config.eval_asr}: none of {len(self._chosen)} records of {self._records.name} that "
                "are answered in sound tells what it says: give them a text, or leave eval_asr out"
            )

    def _say_limits(self) -> None:
        """Tells what of the samples will not be there, or not be heard."""
        config, count = self._config, len(self._chosen)
        if count < config.eval_listen_samples:
            logger.warning(
                "eval_listen_samples=%d: only %d records of %s are answered in sound",
                *(config.eval_listen_samples, count, self._records.name),
            )
        silent = sum(text is None for text in self._texts.values())
        if config.eval_asr is None:
            logger.info("eval_asr is not given: what is spoken is written, and there is no word error rate of it")
        elif silent:
            logger.warning("%d of %d spoken answers tell no text and do not count in spoken_wer", silent, count)
        limit = config.eval_max_new_tokens
        num_longer = sum(len(answer_token_ids(record)) > limit for record in self._records.encode(self._chosen))
        if num_longer:
            logger.warning(
                "eval_max_new_tokens=%d is shorter than %d of the %d answers in sound, which will be cut: %g codes are "
                "a second",
                *(limit, num_longer, count, self._audio_llm.processor.audio_tokenizer.frame_rate),
            )

    # Speaking, which all processes share

    def _speak(self, model: nn.Module) -> dict[int, SpokenAnswer]:
        answered = generate_answers(
            self._accelerator,
            model,
            self._audio_llm,
            self._records,
            self._chosen,
            batch_size=self._config.micro_batch_size,
            max_new_tokens=self._config.eval_max_new_tokens,
            # Free to write and to speak, as it was taught: whether it speaks at all is a part of the answer.
            modalities={"text", "audio"},
            return_waveforms=False,
            seed=self._config.seed,
        )
        mine = [
            (
                index,
                SpokenAnswer(
                    answers.texts[row].strip(),
                    self._sound(answers.codes[row]),
                    answers.finish_reasons[row] == "length",
                ),
            )
            for indexes, answers in answered
            for row, index in enumerate(indexes)
        ]
        gathered = dict(gather_object(mine))
        return {index: gathered[index] for index in self._chosen}

    @cached_property
    def _decoder(self) -> SpeechDecoder:
        # One seed: the same codes always sound the same.
        with whole_weights(self._accelerator):
            return SpeechDecoder(
                self._audio_llm.processor.audio_tokenizer,
                DecodingSettings(seed=self._config.seed),
                joins_segments=self._audio_llm.speaks_in_turns,
            )

    @torch.no_grad()
    def _sound(self, codes: Sequence[Tensor]) -> Tensor | None:
        """Segments ``[T]`` as one waveform ``[N]``, decoded alone so that no other answer changes it."""
        segments = [segment for segment in codes if len(segment)]
        if not segments:
            return None
        [waveforms] = self._decoder.decode([segments])
        return torch.cat([waveform.float().cpu() for waveform in waveforms])

    def _write_references(self) -> None:
        """Decodes the true codes of the records; the main process writes them."""
        accelerator = self._accelerator
        mine = share_of_process(self._chosen, accelerator.process_index, accelerator.num_processes)
        made = [
            (index, self._sound(self._true_codes(answer_token_ids(record))))
            for index, record in zip(mine, self._records.encode(mine), strict=True)
        ]
        self._references = dict(gather_object(made))
        if accelerator.is_main_process:
            (self._folder / REFERENCE_FOLDER).mkdir(parents=True, exist_ok=True)
            for index, waveform in self._references.items():
                save_audio(self._reference_path(index), waveform, self._decoder.sample_rate)

    def _true_codes(self, token_ids: list[int]) -> list[Tensor]:
        segments = self._audio_llm.processor.split(token_ids)
        return [segment.codes for segment in segments if isinstance(segment, AudioSegment)]

    def _reference_path(self, index: int) -> Path:
        return self._folder / REFERENCE_FOLDER / f"{self._names[index]}.wav"

    # Listening, on the main process

    def _listen(self, answers: Mapping[int, SpokenAnswer], step: int) -> dict[str, Any]:
        place = self._folder / f"step_{step:06d}"
        spoken = [index for index, answer in answers.items() if answer.waveform is not None]
        with atomic_folder(place) as folder:
            for index in spoken:
                self._write_sound(folder, index, answers[index])
            verdicts = self._judge(folder, {index: folder / f"{self._names[index]}.wav" for index in spoken}, True)
            own = {index: self._reference_path(index) for index in self._chosen}
            references = self._judge(self._folder / REFERENCE_FOLDER, own, False)
            write_json_lines(
                folder / ANSWERS_NAME,
                [self._row(index, answers[index], verdicts.get(index), references.get(index)) for index in answers],
            )
        line: dict[str, Any] = {
            "num_listened": len(answers),
            "num_spoken_cut": sum(answer.is_cut for answer in answers.values()),
            "num_without_sound": len(answers) - len(spoken),
        }
        with logging_redirect_tqdm():
            logger.info(
                "%d records answered in sound after update %d: %d cut at eval_max_new_tokens=%d, %d without any sound; "
                "listen to %s",
                *(len(answers), step, line["num_spoken_cut"], self._config.eval_max_new_tokens),
                *(line["num_without_sound"], place),
            )
        if self._config.eval_asr is not None:
            line["spoken_wer"] = self._word_error_rate(verdicts, self._chosen)
            line["reference_wer"] = self._word_error_rate(references, self._chosen)
        if self._config.eval_similarity is not None:
            line["spoken_similarity"] = mean_and_count([one.similarity for one in verdicts.values()])["mean"]
        return line

    def _write_sound(self, folder: Path, index: int, answer: SpokenAnswer) -> None:
        """The waveform, and a picture of it beside the record's own: its codes decoded, and its recording if known."""
        assert answer.waveform is not None
        rate, name = self._decoder.sample_rate, self._names[index]
        save_audio(folder / f"{name}.wav", answer.waveform, rate)
        sounds = {"spoken": answer.waveform, "reference codes, decoded": self._references[index]}
        conversation = self._records.conversations[index]
        recordings = [part for part in _spoken_parts(conversation) if part.codes is None]
        if recordings:
            mono = self._audio_llm.processor.mono
            sounds["recording"] = torch.cat([part.load(rate, mono)[0] for part in recordings])
        mel = MelConfig(sample_rate=rate, max_frequency=min(8000.0, rate / 2))
        draw_clip(folder / f"{name}.png", self._texts[index] or conversation.id, sounds, mel)

    def _judge(self, kept_in: Path, paths: Mapping[int, Path], compares_voices: bool) -> dict[int, Verdict]:
        """What the judges say of files; what they have heard of the same sound before is not heard again."""
        if self._judges is None:
            return {}
        recordings = [
            SpokenRecording(
                self._names[index], str(path), str(self._reference_path(index)) if compares_voices else None
            )
            for index, path in paths.items()
        ]
        return dict(zip(paths, self._judges.judge(recordings, kept_in / VERDICTS_NAME), strict=True))

    @cached_property
    def _judges(self) -> SpeechJudges | None:
        config = self._config
        if config.eval_asr is None and config.eval_similarity is None:
            return None
        with whole_weights(self._accelerator):
            return SpeechJudges(
                config.eval_asr or NONE,
                config.eval_similarity or NONE,
                NONE,
                language=config.eval_language,
                device=str(self._accelerator.device),
            )

    def _word_error_rate(self, verdicts: Mapping[int, Verdict], indexes: Sequence[int]) -> float | None:
        pairs = [
            TextPair(self._names[index], _heard(verdicts.get(index)), text)
            for index in indexes
            if (text := self._texts[index]) is not None
        ]
        return corpus_errors(pairs, self._config.eval_language)["wer"] if pairs else None

    def _row(
        self, index: int, answer: SpokenAnswer, verdict: Verdict | None, reference: Verdict | None
    ) -> dict[str, Any]:
        """What is told of an answer beside its files; without judges only what they are not needed for."""
        conversation = self._records.conversations[index]
        row: dict[str, Any] = {
            "id": conversation.id,
            "task": conversation.task,
            "text": self._texts[index],
            "written": answer.text,
            "sound": None if answer.waveform is None else f"{self._names[index]}.wav",
            "seconds": 0.0 if answer.waveform is None else len(answer.waveform) / self._decoder.sample_rate,
            "is_cut": answer.is_cut,
        }
        if self._config.eval_asr is not None:
            row |= {"heard": _heard(verdict), "heard_in_reference": _heard(reference)}
            row |= {"wer": self._word_error_rate({} if verdict is None else {index: verdict}, [index])}
        if self._config.eval_similarity is not None:
            row["similarity"] = None if verdict is None else verdict.similarity
        return row


def is_answered_in_sound(conversation: Conversation) -> bool:
    """Whether the assistant speaks in the last message."""
    return bool(_spoken_parts(conversation))


def _spoken_parts(conversation: Conversation) -> list[AudioPart]:
    message = conversation.messages[-1]
    return [part for part in message.content if isinstance(part, AudioPart)] if message.role == "assistant" else []


def _heard(verdict: Verdict | None) -> str:
    return "" if verdict is None or verdict.hypothesis is None else verdict.hypothesis


@contextmanager
def _same_draws() -> Iterator[None]:
    """Leaves this process's random state as it was: models that are loaded draw their first weights."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)
