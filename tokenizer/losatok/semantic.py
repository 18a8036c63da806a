"""The semantic side: a frozen teacher and the bottleneck that was trained on its features."""
# Shapes: B pieces, N samples, T tokens, E feature size, D latent size.

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from audiollm.tokenizer.checkpoints.folders import read_json_object, replaced_files
from audiollm.tokenizer.checkpoints.tensors import check_complete, load_pickle, read_tensors
from audiollm.tokenizer.kinds import CONFIG, WEIGHTS
from audiollm.tokenizer.zoo.codec import TRAINING_ONLY
from audiollm.tokenizer.zoo.settings import settings_as

from .bottleneck import SemanticBottleneck
from .configuration import SemanticConfig
from .names import UNUSED, bottleneck_values, semantic_names, spelling, teacher_values
from .teacher.base import Teacher
from .teacher.dasheng import DashengSizes, DashengTeacher
from .teacher.kinds import settings_of, teacher_of

MODEL_TYPE = "audiollm_losatok_semantic"
RELEASED = "semantic_encoder.pth"
TEACHER = "teacher"
"""Key of the teacher's settings in a ``config.json``."""


class SemanticEncoder(nn.Module):
    """What is meant: features of a frozen teacher, and the small ones that SemBo makes of them.

    Raises:
        ValueError: if the teacher's features are of another size.
    """

    def __init__(self, config: SemanticConfig, teacher: Teacher) -> None:
        super().__init__()
        if teacher.feature_size != config.feature_size:
            raise ValueError(
                f"the teacher gives features of {teacher.feature_size} numbers, but "
                f"feature_size={config.feature_size}: "
                "make them agree"
            )
        self.config = config
        self.teacher = teacher.requires_grad_(False)
        self.bottleneck = SemanticBottleneck(config)

    def train(self, mode: bool = True) -> SemanticEncoder:
        """The teacher stays in evaluation mode: it is frozen, whatever it is made of."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def high(self, extended_BN: Tensor, loudest_B: Tensor | None = None) -> Tensor:
        """The teacher's features ``[B, T, E]``; see `Teacher.forward`.

        Raises:
            ValueError: if it gives something else.
        """
        features_BTE = self.teacher(extended_BN, loudest_B)
        if not isinstance(features_BTE, Tensor) or features_BTE.shape[2:] != (self.config.feature_size,):
            what = list(features_BTE.shape) if isinstance(features_BTE, Tensor) else type(features_BTE).__name__
            raise ValueError(f"the teacher gives {what}; it must give a tensor [B, T, {self.config.feature_size}]")
        weight = self.bottleneck.compress[0].weight
        assert isinstance(weight, Tensor)
        return features_BTE.to(weight.dtype)

    # ------------------------------------------------------------------- files

    def settings(self) -> dict[str, Any]:
        """Plain data that make it again, but for its weights."""
        return {**dataclasses.asdict(self.config), TEACHER: settings_of(self.teacher)}

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes ``config.json`` and ``model.safetensors``; each appears whole or not at all.

        Raises:
            ValueError: if the teacher can't be saved.
        """
        values = {"model_type": MODEL_TYPE, **self.settings()}
        tensors = {name: one.detach().cpu().contiguous() for name, one in stored(self).items()}
        with replaced_files(Path(folder), WEIGHTS, CONFIG) as staging:
            save_file(tensors, staging / WEIGHTS, metadata={"format": "pt"})
            (staging / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, num_heads: int | None = None) -> SemanticEncoder:
        """Loads what `save_pretrained` wrote, or a release's ``semantic_encoder.pth``, in float32.

        Args:
            folder: that holds it.
            num_heads: of a released teacher; None: those of releases of its width.

        Raises:
            ValueError: naming the file, or the tensors, that are missing or wrong.
        """
        folder = Path(folder)
        if (folder / RELEASED).is_file():
            return cls._read_released(folder / RELEASED, num_heads)
        config = read_json_object(folder / CONFIG)
        if config.get("model_type") != MODEL_TYPE:
            raise ValueError(f"{folder / CONFIG} does not describe the semantic side of a LoSATok")
        if num_heads is not None:
            raise ValueError(
                f"num_heads={num_heads} is for releases, but {folder} holds one that we saved: leave it out"
            )
        values = {name: value for name, value in config.items() if name not in ("model_type", TEACHER)}
        sizes = settings_as(SemanticConfig, values, folder / CONFIG)
        with torch.device("meta"):  # for names and shapes, before anything takes memory
            outline = stored(cls(sizes, teacher_of(config.get(TEACHER), folder / CONFIG)))
        tensors = read_tensors(folder / WEIGHTS, outline)
        model = cls(sizes, teacher_of(config.get(TEACHER), folder / CONFIG))
        model.load_state_dict(tensors, strict=False)
        return model.eval()

    @classmethod
    def _read_released(cls, path: Path, num_heads: int | None) -> SemanticEncoder:
        tensors = read_released(path)
        tensors = {name.removeprefix("semantic_encoder."): tensor for name, tensor in tensors.items()}
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
        sizes = settings_as(SemanticConfig, bottleneck_values(shapes, "bottleneck.", path), path)
        teacher_sizes = settings_as(DashengSizes, teacher_values(shapes, "encoder.", num_heads, path), path)
        with torch.device("meta"):
            outline = cls(sizes, DashengTeacher(teacher_sizes))
        names = semantic_names(stored(outline))
        check_complete({names[name]: one for name, one in stored(outline).items()}, tensors, path)
        model = cls(sizes, DashengTeacher(teacher_sizes))
        model.load_state_dict({name: tensors[released] for name, released in names.items()})
        return model.eval()


def stored(module: nn.Module) -> Mapping[str, Tensor]:
    """What a checkpoint holds of a module: all but what codebooks keep for their training."""
    return {name: one for name, one in module.state_dict().items() if name.rpartition(".")[2] not in TRAINING_ONLY}


def read_released(path: Path) -> dict[str, Tensor]:
    """Reads a released file, whose tensors lie under ``state_dict`` or not, in one spelling of their names.

    Raises:
        ValueError: as `read_tensors`.
    """
    under = None
    if path.suffix != ".safetensors":
        values = load_pickle(path)
        under = "state_dict" if isinstance(values, dict) and "state_dict" in values else None
        del values
    tensors = read_tensors(path, under=under, keep=lambda name: not name.endswith(UNUSED))
    return {spelling(name): tensor for name, tensor in tensors.items()}
