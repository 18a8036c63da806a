"""The kinds of audio tokenizers, as data: what each is, and by which files of a folder it is known.

No model is imported for this: `audiollm tokenizers` and `AudioTokenizer.from_pretrained` look here first, and import
the class of the one kind that is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .checkpoints.folders import PAPERS, read_json_object
from .checkpoints.glm4_voice import is_glm4_voice
from .checkpoints.tensors import stored_shapes

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


class FolderView:
    """What a folder holds, as far as kinds are told by it; read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def files(self) -> frozenset[str]:
        """Names of the files."""
        return frozenset(path.name for path in self.folder.iterdir() if path.is_file())

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What ``config.json`` says; nothing if there is none."""
        return read_json_object(self.folder / CONFIG) if CONFIG in self.files else {}

    @cached_property
    def tensors(self) -> frozenset[str]:
        """Names of the tensors in ``model.safetensors``; none if there is none."""
        return frozenset(stored_shapes(self.folder / WEIGHTS)) if WEIGHTS in self.files else frozenset()

    def has_suffix(self, *suffixes: str) -> bool:
        """Whether there is a file of one of these endings."""
        return any(name.endswith(suffixes) for name in self.files)

    def has_tensor(self, prefix: str) -> bool:
        """Whether ``model.safetensors`` has a tensor whose name begins so."""
        return any(name.startswith(prefix) for name in self.tensors)


@dataclass(frozen=True)
class TokenizerKind:
    """One kind of audio tokenizer.

    Attributes:
        name: in messages, listings, and the ``model_type`` of what we save (``audiollm_<name>``).
        title: as its authors call it.
        class_path: ``module:class``, imported when a folder of this kind is opened.
        looks_for: the files by which it is known, in words.
        is_in: whether a folder is of this kind.
        facts: sizes of the released checkpoints, in words.
        licence: of the released weights.
        needs: what it takes beside the weights; empty: nothing.
        files: names of what belongs to it in its folder, beside what belongs to any (`ANY_FILES`); they are copied
            with it.
    """

    name: str
    title: str
    class_path: str
    looks_for: str
    is_in: Callable[[FolderView], bool]
    facts: str
    licence: str
    needs: str = ""
    files: tuple[str, ...] = ()

    def matches(self, view: FolderView) -> bool:
        """Whether a folder is of this kind: as we save it, or as it was released."""
        return bool(view.config.get("model_type") == self.own_model_type) or self.is_in(view)

    @property
    def all_files(self) -> tuple[str, ...]:
        """Names of everything that belongs to it in its folder, which may hold other things too."""
        return (*ANY_FILES, *self.files)

    @property
    def own_model_type(self) -> str:
        """``model_type`` in the ``config.json`` that we write."""
        return f"{OWN_PREFIX}{self.name}"


OWN_PREFIX = "audiollm_"
PARTS = {
    f"{OWN_PREFIX}losatok_semantic": "the semantic side of a LoSATok, which a first stage leaves: train the second on "
    "it (audiollm train-losatok --stage tokenizer --tokenizer.semantic FOLDER)",
    "waveform_decoder": "a waveform decoder, which lies in a tokenizer's decoder/ folder: name the tokenizer's",
}
"""Parts of a tokenizer, which are none by themselves: ``model_type`` in their ``config.json``, and what to do."""
UNIAUDIO_KINDS = ("uniaudio", "glm4_voice")
"""Names of the kinds of `UniAudioTokenizer`, whose waveform decoder is a model of its own, in a folder of its own."""
ANY_FILES = (
    CONFIG, WEIGHTS, "model-*-of-*.safetensors", f"{WEIGHTS}.index.json", "preprocessor_config.json", *PAPERS,
)  # fmt: skip
"""Names of files as a tokenizer of any kind may have them."""


def _is_whisper_vq(view: FolderView) -> bool:
    config = view.config
    return config.get("model_type") in ("whisper", "uniaudio_tokenizer") and "num_voters" not in config


def _model_type(name: str) -> Callable[[FolderView], bool]:
    return lambda view: view.config.get("model_type") == name


_ZOO = "audiollm.tokenizer.zoo"

KINDS: tuple[TokenizerKind, ...] = (
    TokenizerKind(
        "uniaudio",
        "UniAudio-Token",
        "audiollm.tokenizer.modeling:UniAudioTokenizer",
        "config.json with quantize_vocab_size, and model.safetensors",
        lambda view: _is_whisper_vq(view) and not is_glm4_voice(view.config),
        "1 × 8,192 at 25 Hz, 16 kHz in, 22.05 kHz out with a decoder/ folder",
        "MIT-like, not for use in the EU",
    ),
    TokenizerKind(
        "glm4_voice",
        "GLM-4-Voice",
        "audiollm.tokenizer.modeling:UniAudioTokenizer",
        "config.json with quantize_causal_block_size and without an SAE, and model.safetensors, or its parts",
        lambda view: _is_whisper_vq(view) and is_glm4_voice(view.config),
        "1 × 16,384 at 12.5 Hz, 16 kHz in, 22.05 kHz out with a decoder/ folder",
        "the GLM-4 model licence",
    ),
    TokenizerKind(
        "stabletoken",
        "StableToken",
        f"{_ZOO}.stabletoken.model:StableToken",
        "config.json with num_voters, and model.safetensors",
        lambda view: "num_voters" in view.config,
        "1 × 8,192 at 25 Hz, 16 kHz in",
        "MIT-like, not for use in the EU",
    ),
    TokenizerKind(
        "cosyvoice2",
        "CosyVoice2 speech tokenizer",
        f"{_ZOO}.cosyvoice2.model:CosyVoice2Tokenizer",
        "speech_tokenizer_v2.onnx, or model.safetensors with quantizer._codebook.project_down",
        lambda view: "speech_tokenizer_v2.onnx" in view.files or view.has_tensor("quantizer._codebook.project_down"),
        "1 × 6,561 at 25 Hz, 16 kHz in",
        "Apache-2.0",
        files=("speech_tokenizer_v2.onnx",),
    ),
    TokenizerKind(
        "wavtokenizer",
        "WavTokenizer",
        f"{_ZOO}.wavtokenizer.model:WavTokenizer",
        "a .ckpt and its .yaml, or model.safetensors with feature_extractor.encodec",
        lambda view: (
            (view.has_suffix(".ckpt") and view.has_suffix(".yaml", ".yml"))
            or view.has_tensor("feature_extractor.encodec.")
        ),
        "1 × 4,096 at 40 or 75 Hz, 24 kHz",
        "MIT",
        files=("*.ckpt", "*.yaml", "*.yml"),
    ),
    TokenizerKind(
        "speechtokenizer",
        "SpeechTokenizer",
        f"{_ZOO}.speechtokenizer.model:SpeechTokenizer",
        "config.json with n_q and semantic_dimension, and a .pt or model.safetensors",
        lambda view: {"n_q", "semantic_dimension"} <= view.config.keys(),
        "8 × 1,024 at 50 Hz, 16 kHz",
        "Apache-2.0",
        files=("*.pt",),
    ),
    TokenizerKind(
        "losatok",
        "LoSATok",
        "audiollm.tokenizer.losatok.model:LoSATok",
        "losatok_kl*.pth, or model.safetensors with dasheng_tokenizer.upsampler",
        lambda view: (
            any(name.startswith("losatok") and name.endswith(".pth") for name in view.files)
            or view.has_tensor("dasheng_tokenizer.upsampler.")
        ),
        "latents of 128 numbers at 25 Hz, 16 kHz",
        "MIT code; see the card",
        files=("losatok*.pth",),
    ),
    TokenizerKind(
        "reasoningcodec",
        "ReasoningCodec",
        "audiollm.tokenizer.reasoningcodec.model:ReasoningCodec",
        "ReasoningCodec*.checkpoint, or model.safetensors with audio_thinking.cls_token",
        lambda view: (
            any(name.startswith("ReasoningCodec") and name.endswith(".checkpoint") for name in view.files)
            or view.has_tensor("audio_thinking.cls_token")
        ),
        "8 × 4,096 at 5 Hz and 8 × 8,192 at 12.5 Hz, 24 kHz",
        "MIT code; see the card",
        needs="a music encoder (music=), for encoding",
        files=(
            "ReasoningCodec*.checkpoint",
            "dit_config.json",
            "model_config.json",
            "sqcodec.pth",
            "sqcodec_config.yaml",
        ),
    ),
    TokenizerKind(
        "sqcodec",
        "SQCodec",
        f"{_ZOO}.sqcodec.model:SQCodec",
        "sqcodec.pth and sqcodec_config.yaml, and no ReasoningCodec*.checkpoint",
        lambda view: "sqcodec.pth" in view.files and not view.has_suffix(".checkpoint"),
        "136 × 19 at 25 Hz, 24 kHz",
        "MIT code; see the card",
        files=("sqcodec.pth", "sqcodec_config.yaml"),
    ),
    *(
        TokenizerKind(
            name,
            title,
            f"{_ZOO}.transformers_codecs.{name}:{class_name}",
            f"config.json of a {name!r} model of transformers, and model.safetensors",
            _model_type(name),
            facts,
            licence,
        )
        for name, title, class_name, facts, licence in (
            ("encodec", "EnCodec", "EnCodec", "2 to 32 × 1,024 at 75 Hz, 24 kHz", "MIT code; see the card"),
            ("mimi", "Mimi", "Mimi", "up to 32 × 2,048 at 12.5 Hz, 24 kHz", "CC-BY-4.0"),
            ("dac", "DAC", "DAC", "9 to 32 × 1,024 at 50 to 86 Hz, 16 to 44.1 kHz", "MIT"),
            ("xcodec", "X-Codec", "XCodec", "8 × 1,024 at 50 Hz, 16 kHz", "see the card"),
            ("xcodec2", "X-Codec2", "XCodec2", "1 × 65,536 at 50 Hz, 16 kHz", "CC-BY-NC-4.0"),
        )
    ),
)
"""Every kind there is."""


def kind_named(name: str) -> TokenizerKind:
    """One kind.

    Raises:
        ValueError: if there is none of that name.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise ValueError(
        f"there is no kind of audio tokenizer called {name!r}; known are {', '.join(k.name for k in KINDS)}"
    )
