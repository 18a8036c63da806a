"""Codecs that the experiment trains: an SQCodec, ReasoningCodecs with and without FiLM, and a LoSATok beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from audiollm.benchmarks.comparison.cells import Cell
from audiollm.data.files.atomic import atomic_folder
from audiollm.data.pretrained.whisper import whisper_from_package
from audiollm.tokenizer.reasoningcodec.encoders import ROLES
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.training.recipes.kept_trainings import KeptTrainings, last_evaluation

from .data import HELD_OUT, TRAIN, ClipData

WITH_FILM, WITHOUT_FILM = "with FiLM", "without FiLM"
FILM = (WITH_FILM, WITHOUT_FILM)
WHISPER_NAME = "tiny.en"
ONCE = 0  # seed of what is trained once
EVAL_CLIPS = 48  # held-out clips that are decoded and compared


@dataclass(frozen=True, kw_only=True)
class CodecSettings:
    """Budget of the codecs; all else is in the small configs of ``training/configs/``."""

    sqcodec_steps: int = 1000
    """Updates of the SQCodec, one training."""

    supervised_steps: int = 300
    """Of the first stage of a ReasoningCodec, one per seed."""

    reconstruction_steps: int = 600
    """Of its last stage, two per seed."""

    semantic_steps: int = 300
    """Of the first stage of a LoSATok, one training."""

    tokenizer_steps: int = 600
    """Of its second."""

    whisper_seconds: int = 4
    """That a ReasoningCodec's encoder hears at once; longer clips piece by piece."""

    codebooks: int = 8
    """Of the reasoning codes; as many as the reconstruction has, so that a multi-stream LM takes both."""

    flags: tuple[str, ...] = ()
    """Further flags of all of them."""


class Codecs:
    """The trainings of codecs, each made when it is first asked for.

    Args:
        data: to learn from.
        settings: budget.
        trainings: keeps what is complete.
    """

    def __init__(self, data: ClipData, settings: CodecSettings, trainings: KeptTrainings) -> None:
        self._data, self._settings, self._trainings = data, settings, trainings
        self._folder = trainings.folder / "codecs"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides every codec, beside its seed."""
        return {"data": self._data.fingerprint, "codecs": asdict(self._settings)}

    def losatok(self) -> Path:
        """A LoSATok on the embedded model's tokenizer."""
        steps, file, script = self._settings, "losatok_small_{}.yaml", "train_losatok.py"
        semantic = self._once("losatok-semantic", script, file.format("semantic"), ONCE, steps.semantic_steps, [])
        named = ["--tokenizer.semantic", str(semantic)]
        return self._once("losatok", script, file.format("tokenizer"), ONCE, steps.tokenizer_steps, named)

    def reasoning_codec(self, film: str, seed: int) -> Path:
        """A ReasoningCodec after its last stage, ``with FiLM`` or ``without FiLM``."""
        steps, script = self._settings, "train_reasoning_codec.py"
        sqcodec = self._once("sqcodec", "train_codec.py", "codec_sqcodec_small.yaml", ONCE, steps.sqcodec_steps, [])
        whisper = str(self._whisper())
        supervised = self._once(
            "supervised",
            script,
            "reasoning_codec_small_supervised.yaml",
            seed,
            steps.supervised_steps,
            [
                *("--sizes.quantizer", f"[{steps.codebooks},256,32]"),
                *(one for role in ROLES for one in (f"--encoders.{role}.source", whisper)),
            ],
            files=[self._data.analyses(TRAIN), self._data.analyses(HELD_OUT)],
        )
        flags = ["--codec", str(supervised), "--reconstruction.sqcodec", str(sqcodec)]
        flags += ["--reconstruction.film", str(film == WITH_FILM).lower(), "--eval_clips", str(EVAL_CLIPS)]
        name, config = film.replace(" ", "-").lower(), "reasoning_codec_small_reconstruction.yaml"
        return self._once(name, script, config, seed, steps.reconstruction_steps, flags)

    def group(self, film: str, seed: int, group: str) -> Path:
        """The same with the codes of one group alone, as a folder of its own."""
        run = self.reasoning_codec(film, seed)
        folder = run.parent / f"{run.name}-{group}"
        if not folder.is_dir():
            with atomic_folder(folder) as staging:
                ReasoningCodec.from_pretrained(run, group=group).save_pretrained(staging)
        return folder

    def _whisper(self) -> Path:
        """Whisper's encoder for shorter clips: filled up to 30 s, hearing would take most of the time."""
        seconds, folder = self._settings.whisper_seconds, self._folder / "whisper"
        if not folder.is_dir():
            source = whisper_from_package(WHISPER_NAME)
            model = WhisperModel.from_pretrained(source, dtype=torch.float32, trust_remote_code=False)
            positions, encoder = 50 * seconds, model.encoder
            config = WhisperConfig.from_pretrained(source, max_source_positions=positions)
            state = model.state_dict()
            state["encoder.embed_positions.weight"] = encoder.embed_positions.weight[:positions]
            short = WhisperModel(config)
            short.load_state_dict(state)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with atomic_folder(folder) as staging:
                short.save_pretrained(staging)
                extractor = WhisperFeatureExtractor.from_pretrained(source, chunk_length=seconds)
                extractor.save_pretrained(staging)
        return folder

    def figures(self, film: str, seed: int) -> dict[str, Any]:
        """What the last evaluation of a ReasoningCodec says."""
        return last_evaluation(self.reasoning_codec(film, seed))

    def _once(
        self,
        name: str,
        script: str,
        config: str,
        seed: int,
        steps: int,
        flags: Sequence[str],
        files: Sequence[Path] = (),
    ) -> Path:
        train, held_out = files or (self._data.clips(TRAIN), self._data.clips(HELD_OUT))
        shared = ["--train_data", str(train), "--eval_data", str(held_out), "--seed", str(seed)]
        shared += ["--max_steps", str(steps), "--eval_every", str(steps), *self._settings.flags]
        cell = Cell("trained", name, f"seed{seed}")
        run = self._folder / f"{name}-seed{seed}"
        return self._trainings.once(cell, self.identity, run, script, config, lambda: [*flags, *shared])
