"""What may be generated, how much of it, and how it is drawn: settings, checked before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import Any, TypeVar

from .grammar import check_modalities
from .passed_on import check_passed_on, with_generation_config
from .sampling import SamplingSettings
from .values import check_values

Function = TypeVar("Function", bound=Callable[..., Any])


# The fields of `SamplingSettings`, each None where it is not given: with them one tells whether to draw at all.
_SamplingOptions: Any = make_dataclass(
    "_SamplingOptions", [(one.name, Any, None) for one in fields(SamplingSettings)], frozen=True, kw_only=True
)


@dataclass(frozen=True, kw_only=True)
class GenerationSettings(_SamplingOptions):
    """What may be generated, how much of it, and how it is drawn: these, and each setting of `SamplingSettings`.

    Attributes:
        modalities: {"text"}, {"audio"} (one segment) or {"text", "audio"}.
        max_new_tokens: longest answer; None: 256 for text, and room for ``max_seconds`` (30 s if not given) of audio.
        min_seconds: shortest audio segment; with ``turns``, shortest sound of all of them.
        max_seconds: longest audio segment; with ``turns``, longest sound of all of them.
        turns: what each answer says, as the words of its turns (`audiollm.generation.turns.turns_of` makes them of a
            text): each is written, then spoken. For {"text", "audio"}, and a model that was trained on such answers.
        do_sample: draw, or take the most likely token; None: draw for audio, and if it is said how.
        seed: of the draws; None: torch's global state.
        transformers: what is passed on to transformers' ``generate``, see `passed_on`.

    Raises:
        ValueError: if settings contradict each other, or one would have no effect.
    """

    modalities: Collection[str] = ("text",)
    max_new_tokens: int | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    turns: Sequence[Sequence[str]] | None = None
    do_sample: bool | None = None
    seed: int | None = None
    transformers: Mapping[str, Any] = field(default_factory=dict)
    sampling: SamplingSettings | None = field(init=False)
    """How to draw; None for greedy."""

    def __post_init__(self) -> None:
        check_values({**self.transformers, **{one.name: getattr(self, one.name) for one in fields(self) if one.init}})
        object.__setattr__(self, "modalities", check_modalities(self.modalities))
        object.__setattr__(self, "sampling", self._sampling())
        object.__setattr__(self, "transformers", check_passed_on(self.transformers))
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: use 1 or more")
        if self.modalities == {"text"} and (self.min_seconds, self.max_seconds) != (None, None):
            raise ValueError("min_seconds and max_seconds are of audio: allow 'audio' among the modalities too")
        if self.turns is not None and self.modalities != {"text", "audio"}:
            raise ValueError("turns write and speak: use modalities={'text', 'audio'} with them")
        shortest = [name for name in ("min_length", "min_new_tokens") if name in self.transformers]
        if self.seed is not None and self.sampling is None and self.modalities == {"text"}:
            raise ValueError(
                f"seed={self.seed} has no effect, for nothing is drawn: pass do_sample=True, or leave it out"
            )
        if "audio" in self.modalities and shortest:
            raise ValueError(f"{shortest[0]} would keep audio from ending where its segment has: give min_seconds")

    def with_audio_sampling(self, defaults: Mapping[str, Any]) -> GenerationSettings:
        """The same with a checkpoint's own settings for drawing audio where none is given.

        Args:
            defaults: fields of `SamplingSettings`.
        """
        if "audio" not in self.modalities or self.do_sample is False:
            return self
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> GenerationSettings:
        """Sorts the arguments of ``generate``: ours, those of transformers, and those in a ``generation_config``."""
        arguments = with_generation_config(arguments)
        ours = {one.name for one in fields(cls) if one.init} - {"transformers"}
        settings = {name: value for name, value in arguments.items() if name in ours}
        rest = {name: value for name, value in arguments.items() if name not in ours}
        return cls(**settings, transformers=rest)

    def _sampling(self) -> SamplingSettings | None:
        names = [one.name for one in fields(SamplingSettings)]
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        # Greedy codes fall into a loop of silence or of one held sound; greedy text is what evaluation wants.
        do_sample = self.do_sample if self.do_sample is not None else bool(given) or "audio" in self.modalities
        if not do_sample and given:
            raise ValueError(f"do_sample=False takes the most likely token, so leave out {', '.join(given)}")
        return SamplingSettings(**given) if do_sample else None


def takes_settings(function: Function) -> Function:
    """Shows the settings in the signature of a function that takes them as keyword arguments of any name."""
    signature = inspect.signature(function)
    *own, others = signature.parameters.values()
    settings = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
        for one in fields(GenerationSettings)
        if one.init and one.name != "transformers"
    ]
    function.__signature__ = signature.replace(parameters=[*own, *settings, others])  # type: ignore[attr-defined]
    return function
