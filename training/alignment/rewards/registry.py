"""Rewards by name: ours, and those that packages offer.

A reward is made by a factory that gets `AnswerSounds` and, as keyword arguments, the options of the run's config::

    [project.entry-points."audiollm.rewards"]
    mine = "my_package.rewards:MyReward"  # MyReward(sounds, *, strictness=2)(answers) -> one number an answer
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from audiollm.data.plugins import PluginNames

from .base import Reward
from .consistent import JudgedConsistency, SapConsistency
from .sounds import AnswerSounds
from .spoken import SpokenWords, VoiceMatch
from .written import AnswerForm, AnswerLength, RightAnswer

REWARDS: PluginNames[Reward] = PluginNames("reward", "audiollm.rewards")
for _name, _factory in {
    "wer": SpokenWords, "voice": VoiceMatch, "correct": RightAnswer, "length": AnswerLength, "form": AnswerForm,
    "sap": SapConsistency, "judge": JudgedConsistency,
}.items():  # fmt: skip
    REWARDS.register(_name, _factory)


def check_reward(name: str, options: Mapping[str, Any]) -> None:
    """Refuses a reward that does not exist, or options that it does not take.

    Raises:
        ValueError: naming what there is instead.
    """
    factory = REWARDS.find(name)
    if factory is None:
        raise ValueError(f"no reward {name!r}; there are {', '.join(REWARDS.available())}")
    parameters = list(inspect.signature(factory).parameters.values())[1:]
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return
    known = [one.name for one in parameters]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"reward {name} takes no option {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    missing = [one.name for one in parameters if one.default is one.empty and one.name not in options]
    if missing:
        raise ValueError(f"reward {name} needs the option {missing[0]}")


def make_rewards(settings: Sequence[tuple[str, Mapping[str, Any]]], sounds: AnswerSounds) -> list[Reward]:
    """Makes the rewards of a run.

    Args:
        settings: names and options.
        sounds: shared by all that listen.

    Raises:
        ValueError: see `check_reward`; or an option has a value that the reward refuses.
    """
    rewards = []
    for name, options in settings:
        check_reward(name, options)
        factory = REWARDS.find(name)
        assert factory is not None  # or else it has just been refused
        rewards.append(factory(sounds, **options))
    return rewards
