"""From a folder or Hub id to the teacher, or the semantic side, that lies there."""

from __future__ import annotations

from pathlib import Path

from audiollm.tokenizer.checkpoints.folders import find_folder, read_json_object
from audiollm.tokenizer.kinds import CONFIG, FolderView, kind_named
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.opening import find_tokenizer_folder, kind_of

from .model import LoSATok
from .semantic import MODEL_TYPE, RELEASED, SemanticEncoder
from .teacher.base import Teacher
from .teacher.plugged import TransformersTeacher, UniAudioTeacher


def load_teacher(source: str) -> Teacher:
    """Loads a frozen encoder, of whatever kind the files say.

    Args:
        source: folder or Hub id of a release of LoSATok or one of our own (its teacher), of one of our tokenizers, of
            an audio encoder of transformers with its feature extractor, or "mini".

    Raises:
        ValueError: if there is nothing of the kind, or it is damaged.
    """
    folder = find_tokenizer_folder(source)
    if _is_semantic(folder):
        return SemanticEncoder.from_pretrained(folder).teacher
    config = read_json_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if _is_of_transformers(config):
        try:
            return TransformersTeacher.from_pretrained(str(folder))
        except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{source} holds no audio encoder of transformers that can teach, with its feature extractor: {error}"
            ) from error
    kind = kind_of(folder)
    if kind.name == LoSATok.kind_name:
        return LoSATok.from_pretrained(folder, encoder_only=True).semantic.teacher
    if kind.name != "uniaudio":
        raise ValueError(
            f"{source} holds a {kind.title}, whose features do not tell what is meant: name a LoSATok, one of our own "
            "tokenizers, or an audio encoder of transformers"
        )
    return UniAudioTeacher(UniAudioTokenizer.from_pretrained(source, encoder_only=True).eval())


def load_semantic(source: str) -> SemanticEncoder:
    """Loads a trained semantic side: of a first stage's run, a release, or a whole LoSATok.

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    path = Path(source)
    if (path / "run.json").is_file() and not (path / "model").is_dir():
        raise ValueError(f"{source} is a run that has not saved its model folder yet: wait for a checkpoint")
    folder = find_folder(source, needed=("*.json", "*.safetensors", "*.pth"), kind="semantic side")
    folder = folder / "model" if (folder / "run.json").is_file() else folder
    if _is_semantic(folder):
        return SemanticEncoder.from_pretrained(folder)
    if kind_named(LoSATok.kind_name).matches(FolderView(folder)):
        return LoSATok.from_pretrained(folder, encoder_only=True).semantic
    raise ValueError(
        f"{source} holds no semantic side of a LoSATok: neither what a first stage saves, nor {RELEASED}, nor a LoSATok"
    )


def _is_semantic(folder: Path) -> bool:
    view = FolderView(folder)
    return RELEASED in view.files or view.config.get("model_type") == MODEL_TYPE


def _is_of_transformers(config: object) -> bool:
    """Whether a config is that of a model that transformers knows, and not of one of our tokenizers."""
    if not isinstance(config, dict) or "quantize_vocab_size" in config:
        return False
    model_type = str(config.get("model_type", ""))
    return bool(model_type) and not model_type.startswith(("audiollm", "uniaudio"))
