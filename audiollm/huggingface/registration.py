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

    def __init__(self, name: str, public_names: Sequence[str]) -> None:
        super().__init__(f"{_MODELS}.{name}", "Classes of audiollm.")
        self.__all__ = list(public_names)
        sys.modules[self.__name__] = self

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__["__all__"]:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        # All of them: importing the model registers it beside its configuration.
        return {public: getattr(sys.modules["audiollm"], public) for public in self.__all__}[name]


class AudioTokenizerInReleasedLayout:
    """What `AutoModelForAudioTokenization` loads where ``config.json`` says "whisper": a released tokenizer.

    No model of transformers is both Whisper and an audio tokenizer, so this is in nobody's way.
    """

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str, *arguments: Any, config: Any = None, **options: Any) -> Any:
        """Loads a `UniAudioTokenizer`, whose own reading of ``config.json`` counts; options as for that."""
        return sys.modules["audiollm"].UniAudioTokenizer.from_pretrained(path_or_hub_id, *arguments, **options)


def _add_configuration(module: ModuleType) -> None:
    _Names("uniaudio_tokenizer", ["UniAudioTokenizer", "UniAudioTokenizerConfig"])
    module.CONFIG_MAPPING_NAMES["uniaudio_tokenizer"] = "UniAudioTokenizerConfig"


def _add_processor(module: ModuleType) -> None:
    _Names("audiollm", ["AudioLLMProcessor"])
    module.PROCESSOR_MAPPING_NAMES["audiollm"] = "AudioLLMProcessor"


def _add_released_layout(module: ModuleType) -> None:
    from transformers import WhisperConfig  # transformers is being imported; only its own module may ask

    module.AutoModelForAudioTokenization.register(WhisperConfig, AudioTokenizerInReleasedLayout, exist_ok=True)


_ACTIONS: dict[str, Callable[[ModuleType], None]] = {
    f"{_AUTO}.configuration_auto": _add_configuration,
    f"{_AUTO}.processing_auto": _add_processor,
    f"{_AUTO}.modeling_auto": _add_released_layout,
}
