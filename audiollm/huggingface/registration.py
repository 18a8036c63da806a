"""The auto classes of transformers find our classes once ``audiollm`` is imported, which costs nothing until they look.

transformers lists its own models by name and imports a class when it is asked for. Ours are put into the same lists, as
soon as somebody imports those: before, there is nothing to do, so ``import audiollm`` needs neither torch nor
transformers.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

_MODELS, _AUTO = "transformers.models", "transformers.models.auto"


def register() -> None:
    """Puts our names into the lists of transformers: into those that are there, and into others when they come."""
    for name, action in _ACTIONS.items():
        if name in sys.modules:
            action(sys.modules[name])
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(MetaPathFinder):
    """Runs an action of ours behind the import of a module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        action = _ACTIONS.get(fullname)
        spec = None if action is None else importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if action is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            action(module)

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]  # of this one loader
        return spec


class _Names(ModuleType):
    """Stands for the folder of a model in transformers; its classes are our public names, imported when asked for."""

    def __init__(self, name: str, public_names: Sequence[str], source: str = "audiollm") -> None:
        super().__init__(f"{_MODELS}.{name}", "Classes of audiollm.")
        self.__all__ = list(public_names)
        self._source = source
        sys.modules[self.__name__] = self

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__["__all__"]:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        # All of them: importing the model registers it beside its configuration.
        source = importlib.import_module(self._source)
        return {public: getattr(source, public) for public in self.__all__}[name]


class AudioTokenizerElsewhere:
    """What `AutoModelForAudioTokenization` loads where ``config.json`` is not a `UniAudioTokenizer`'s own.

    A plain Whisper is refused there with the cure, and an Audio-LLM's folder is that of its LLM. No model of
    transformers with such a configuration is an audio tokenizer, so this is in nobody's way.
    """

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str, *arguments: Any, config: Any = None, **options: Any) -> Any:
        """Loads an `AudioTokenizer`, whose own reading of ``config.json`` counts; options as for that."""
        for name in _FROM_AUTO_CLASSES:
            options.pop(name, None)
        tokenizer_class = importlib.import_module("audiollm.tokenizer").AudioTokenizer
        return tokenizer_class.from_pretrained(path_or_hub_id, *arguments, **options)


def _add_configuration(module: ModuleType) -> None:
    _Names("uniaudio_tokenizer", ["UniAudioTokenizer", "UniAudioTokenizerConfig"])
    module.CONFIG_MAPPING_NAMES["uniaudio_tokenizer"] = "UniAudioTokenizerConfig"
    for name in OTHER_KINDS:  # as we save them
        _Names(f"audiollm_{name}", ["AnyTokenizerConfig"], "audiollm.huggingface.any_tokenizer")
        module.CONFIG_MAPPING_NAMES[f"audiollm_{name}"] = "AnyTokenizerConfig"
    _Names("uniaudio_lm", ["UniAudioLM", "UniAudioLMConfig"])
    module.CONFIG_MAPPING_NAMES["uniaudio_lm"] = "UniAudioLMConfig"


def _add_processor(module: ModuleType) -> None:
    _Names("audiollm", ["AudioLLMProcessor"])
    module.PROCESSOR_MAPPING_NAMES["audiollm"] = "AudioLLMProcessor"


def _add_released_layout(module: ModuleType) -> None:
    """Lets a ``config.json`` of the released layout, which calls itself "whisper", be read as an audio tokenizer's.

    It alone has a codebook. Without this, the auto classes would make a Whisper model of it, with weights drawn at
    random for all that it lacks.
    """
    whisper = module.WhisperConfig

    def from_dict(cls: Any, config_dict: dict[str, Any], **options: Any) -> Any:
        if cls is whisper and config_dict.get("quantize_vocab_size"):
            # Keys left out of a released file have Whisper's defaults.
            values = {**whisper().to_dict(), **config_dict}
            del values["model_type"]
            return sys.modules["audiollm"].UniAudioTokenizerConfig.from_dict(values, **options)
        return super(whisper, cls).from_dict(config_dict, **options)

    whisper.from_dict = classmethod(from_dict)
    _add_audio_tokenizers(module)


def _add_audio_tokenizers(_: ModuleType) -> None:
    """Adds those configurations that are imported already: importing others only for this would take seconds."""
    auto = getattr(sys.modules.get(f"{_AUTO}.modeling_auto"), "AutoModelForAudioTokenization", None)
    for name, class_name in _CONFIGURATIONS.items():
        config_class = getattr(sys.modules.get(_configuration_module(name)), class_name, None)
        if auto is not None and config_class is not None:
            auto.register(config_class, AudioTokenizerElsewhere, exist_ok=True)


def _configuration_module(name: str) -> str:
    return f"{_MODELS}.{name}.configuration_{name}"


OTHER_KINDS = (
    "stabletoken", "cosyvoice2", "wavtokenizer", "speechtokenizer", "losatok", "reasoningcodec", "sqcodec",
)  # fmt: skip
"""Kinds of audio tokenizers that are saved with a ``model_type`` of ours. Their table is not imported for it, which
needs torch."""
_FROM_AUTO_CLASSES = ("_from_auto", "trust_remote_code", "adapter_kwargs", "code_revision")
"""Options that the auto classes add."""
# Of the released layout, and of the LLMs that are extended most.
_CONFIGURATIONS = {
    "whisper": "WhisperConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "qwen3_moe": "Qwen3MoeConfig",
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "gemma3": "Gemma3TextConfig",
    "smollm3": "SmolLM3Config",
    "phi3": "Phi3Config",
}
_ACTIONS: dict[str, Callable[[ModuleType], None]] = {
    f"{_AUTO}.configuration_auto": _add_configuration,
    f"{_AUTO}.processing_auto": _add_processor,
    **dict.fromkeys((f"{_AUTO}.modeling_auto", *map(_configuration_module, _CONFIGURATIONS)), _add_audio_tokenizers),
    _configuration_module("whisper"): _add_released_layout,
}
