"""Monitor of a tokenizer's training: the gate's means per sound type, and alarms with advice before it is too late.

A codebook collapses slowly, then all at once, while the loss looks fine; the advice names the settings that help.
"""
# Shapes: B clips.

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiollm.data.records import SOUND_TYPES

RECOVERED = 0.9  # an alarm that is on goes off below this share of its threshold, so that it does not flicker


def gate_sums_by_type(gate_means_B: Tensor, sound_types: Sequence[str]) -> Tensor:
    """Sums up gates so that passes and processes can be added together.

    Args:
        gate_means_B: mean gate of each clip, ``[B]``.
        sound_types: of each clip, one of ``SOUND_TYPES``.

    Returns:
        Sum of the means and number of clips by type, float64 ``[4, 2]``, on the gates' device.
    """
    values_B2 = torch.stack([gate_means_B.detach().double(), torch.ones_like(gate_means_B, dtype=torch.float64)], dim=1)
    rows_B = torch.tensor([SOUND_TYPES.index(one) for one in sound_types], device=gate_means_B.device)
    return values_B2.new_zeros(len(SOUND_TYPES), 2).index_add_(0, rows_B.long(), values_B2)


def gate_means_by_type(sums: Tensor) -> dict[str, float]:
    """Turns added-up `gate_sums_by_type` into the mean by type; types without a clip are left out."""
    return {name: total / count for name, (total, count) in zip(SOUND_TYPES, sums.tolist(), strict=True) if count}


@dataclass(frozen=True, kw_only=True)
class AlarmThresholds:
    """When the monitor speaks up. Shares of codes are of what is attainable: V, or the frames of an update if fewer."""

    warmup_updates: int = 100
    """No alarm before so many updates: everything moves at first."""

    smoothing_updates: int = 20
    """Values are averaged over about so many updates."""

    min_code_usage: float = 0.1
    """Least share of codes in use."""

    min_perplexity: float = 0.05
    """Least perplexity, as a share of the attainable."""

    min_perplexity_of_best: float = 0.4
    """Least perplexity, as a share of the best that the run has had."""

    max_restarted: float = 0.5
    """Most codes to be restarted, again and again."""

    restart_rounds: int = 5
    """How often in a row is again and again."""

    min_gate: float = 0.02
    """A mean gate below is shut, one above 1 minus this is stuck open."""

    max_error: float = 1.0
    """Highest relative quantization error. At 1, zeros would describe the features as well."""

    max_error_of_best: float = 1.5
    """Highest relative quantization error, as a multiple of the least that the run has had."""

    max_loss_of_best: float = 1.5
    """Highest averaged loss, as a multiple of the least that the run has had."""

    spike_deviations: float = 6.0
    """A loss so many mean deviations above the average, and half above it, is a spike."""

    def __post_init__(self) -> None:
        for name in ("warmup_updates", "smoothing_updates", "restart_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"alarms.{name}={getattr(self, name)}: use 1 or more")
        for name in ("min_code_usage", "min_perplexity", "min_perplexity_of_best", "max_restarted", "min_gate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"alarms.{name}={getattr(self, name)}: use a share between 0 and 1")
        for name in ("max_error", "max_error_of_best", "max_loss_of_best", "spike_deviations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"alarms.{name}={getattr(self, name)}: use a positive number")


@dataclass(frozen=True)
class _Finding:
    """How far something is on the way to its alarm: above 1 it is there."""

    name: str
    excess: float
    message: str


class TokenizerMonitor:
    """Raises alarms over the lines of metrics that training writes; pure bookkeeping, no model and no process group.

    A line may hold, and what it lacks is not watched:

    - ``loss``: of the update;
    - ``code_usage``: share of the V codes in use, in [0, 1], and ``perplexity`` of the update's codes;
    - ``num_frames``: valid frames of the update, which bound both;
    - ``num_restarted``: codebook rows restarted by the update;
    - ``relative_quantization_error``: sum of (x - e)² over sum of x²;
    - ``gate_means``: by sound type.

    Args:
        codebook_size: V.
        thresholds: when to speak up.
        restart_interval: updates between restarts of dead rows; None does not watch them.
        ema_decay: decay of the codebook's averages, for the advice on restarts.
        is_voted: whether codes are voted for, and have no entries that k-means could place.
        advice: what helps against a collapse; None: the settings of ``train_tokenizer.py`` that do.
    """

    def __init__(
        self,
        codebook_size: int,
        thresholds: AlarmThresholds | None = None,
        *,
        restart_interval: int | None = None,
        ema_decay: float | None = None,
        is_voted: bool = False,
        advice: str | None = None,
    ) -> None:
        self.codebook_size = codebook_size
        self.thresholds = thresholds or AlarmThresholds()
        self.restart_interval = restart_interval
        self.ema_decay = ema_decay
        self.is_voted = is_voted
        self._advice = advice or self._usual_advice()
        self._num_updates = 0
        self._averages: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._restarted: list[float] = []  # share of rows restarted in each of the latest rounds, this one last
        self._active: list[str] = []

    def update(self, line: Mapping[str, Any]) -> list[str]:
        """Takes in an update's line; returns the alarms that it sets off.

        An alarm that is on stays silent until what it is about has recovered.
        """
        self._num_updates += 1
        # Looked for during the warm-up too: averages and best values build up from the first update.
        findings = [
            *self._codes(line),
            *self._restarts(line),
            *self._gates(line),
            *self._error(line),
            *self._loss(line),
        ]
        if self._num_updates <= self.thresholds.warmup_updates:
            return []
        alarms = []
        for finding in findings:
            if finding.name in self._active:
                if finding.excess < RECOVERED:
                    self._active.remove(finding.name)
            elif finding.excess > 1:
                self._active.append(finding.name)
                alarms.append(finding.message)
        return alarms

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to raise the alarms of an uninterrupted one; plain values, as JSON has them."""
        return {
            "num_updates": self._num_updates,
            "averages": dict(self._averages),
            "best": dict(self._best),
            "restarted": list(self._restarted),
            "active": list(self._active),
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Inverse of `state_dict`."""
        self._num_updates = state["num_updates"]
        self._averages, self._best = dict(state["averages"]), dict(state["best"])
        self._restarted, self._active = list(state["restarted"]), list(state["active"])

    # ------------------------------------------------------------------ rules

    def _codes(self, line: Mapping[str, Any]) -> Iterator[_Finding]:
        """Collapse: few codes in use, or most frames on few of them."""
        limits, attainable = self.thresholds, min(self.codebook_size, line.get("num_frames", self.codebook_size))
        advice = f"the codebook is collapsing: {self._advice}"
        if (usage := line.get("code_usage")) is not None:
            average = self._average("code_usage", usage)
            least = limits.min_code_usage * attainable / self.codebook_size
            yield _Finding(
                "code_usage", _ratio(least, average), f"code usage is {average:.1%} of the codebook; {advice}"
            )
        if (perplexity := line.get("perplexity")) is not None:
            average = self._average("perplexity", perplexity)
            best = self._best_so_far("perplexity", average, max)
            least = max(limits.min_perplexity * attainable, limits.min_perplexity_of_best * best)
            yield _Finding(
                "perplexity",
                _ratio(least, average),
                f"perplexity is {average:.0f} of {attainable} attainable, after {best:.0f} at its best; {advice}",
            )

    def _usual_advice(self) -> str:
        first = (
            "raise audio_tokenizer.codebook_entropy_weight"
            if self.is_voted
            else "start it from k-means (initialise_codebook: kmeans)"
        )
        return (
            f"{first}, lower encoder_learning_rate, raise global_batch_size, or use a smaller "
            "audio_tokenizer.codebook_size"
        )

    def _restarts(self, line: Mapping[str, Any]) -> Iterator[_Finding]:
        """Rows are restarted wholesale in every round: they never keep frames of their own."""
        if self.restart_interval is None or "num_restarted" not in line:
            return
        if (self._num_updates - 1) % self.restart_interval == 0:
            self._restarted.append(0.0)
        frames = line.get("num_frames", self.codebook_size)
        self._average("num_frames", frames)
        # An update cannot restart more rows than it has frames.
        self._restarted[-1] += line["num_restarted"] / max(1, min(self.codebook_size, frames))
        rounds = self.thresholds.restart_rounds
        self._restarted = self._restarted[-rounds:]
        if len(self._restarted) < rounds or self._num_updates % self.restart_interval:
            return  # judged at the end of a round
        least = min(self._restarted)
        yield _Finding(
            "restarts",
            _ratio(least, self.thresholds.max_restarted),
            f"each of the last {rounds} restarts replaced at least {least:.0%} of the codebook rows that it had frames "
            f"for: codes cannot settle; {self._restart_advice()}",
        )

    def _restart_advice(self) -> str:
        """What to do against restarts, with numbers where the codebook's decay is known."""
        seen = max(self._averages["num_frames"], 1) / self.codebook_size
        if self.ema_decay is None or self.restart_interval is None:
            return (
                "raise global_batch_size or audio_tokenizer.restart_interval, or use a smaller "
                "audio_tokenizer.codebook_size"
            )
        least = self.ema_decay**self.restart_interval
        # At a quarter of its mean count a row is little used, and still not dead.
        interval = max(self.restart_interval + 1, math.ceil(math.log(seen / 4) / math.log(self.ema_decay)))
        return (
            f"an update shows each of {self.codebook_size} codes {seen:.2f} times on average, and below {least:.2f} it "
            f"counts as dead; raise audio_tokenizer.restart_interval to {interval} or so, raise global_batch_size, or "
            "use a smaller audio_tokenizer.codebook_size"
        )

    def _gates(self, line: Mapping[str, Any]) -> Iterator[_Finding]:
        """Saturation: a gate that is always shut or always open tells sounds apart no more, and hardly learns."""
        least = self.thresholds.min_gate
        for sound_type, gate in line.get("gate_means", {}).items():
            average = self._average(f"gate_{sound_type}", gate)
            yield _Finding(
                f"gate_{sound_type}_shut",
                _ratio(least, average),
                f"the gate is shut for {sound_type} (mean {average:.3f}): shallow features no longer reach the codes; "
                "lower learning_rate (of the rest), or start again from a checkpoint before it closed",
            )
            yield _Finding(
                f"gate_{sound_type}_open",
                _ratio(least, 1 - average),
                f"the gate is stuck open for {sound_type} (mean {average:.3f}): it no longer weighs shallow features; "
                "lower learning_rate (of the rest), or start again from a checkpoint before it opened",
            )

    def _error(self, line: Mapping[str, Any]) -> Iterator[_Finding]:
        """The features run away from the codebook."""
        if (error := line.get("relative_quantization_error")) is None:
            return
        limits, average = self.thresholds, self._average("error", error)
        best = self._best_so_far("error", average, min)
        yield _Finding(
            "error",
            _ratio(average, min(limits.max_error, limits.max_error_of_best * best)),
            f"the relative quantization error is {average:.3f}, after {best:.3f} at its best: features run away from "
            "the codebook; raise audio_tokenizer.loss_scale, lower encoder_learning_rate, or lower "
            "audio_tokenizer.ema_decay",
        )

    def _loss(self, line: Mapping[str, Any]) -> Iterator[_Finding]:
        """Spikes, and a loss that goes up for good."""
        if (loss := line.get("loss")) is None:
            return
        limits, before = self.thresholds, self._averages.get("loss", loss)
        deviation = self._averages.get("loss_deviation", abs(loss))
        spike = max(1.5 * before, before + limits.spike_deviations * deviation)
        kept = min(loss, spike)  # a single spike must not look like a loss that has gone up
        self._average("loss_deviation", abs(kept - before))
        average = self._average("loss", kept)
        best = self._best_so_far("loss", average, min)
        yield _Finding(
            "loss_spike",
            _ratio(loss, spike),
            f"the loss jumped from about {before:.3f} to {loss:.3f}: if it does not come back, lower the learning "
            "rates or max_grad_norm; if it happens at every pass over the data, look at that update's clips",
        )
        yield _Finding(
            "loss_rising",
            _ratio(average, limits.max_loss_of_best * best),
            f"the loss has gone up to {average:.3f}, after {best:.3f} at its best: lower the learning rates, or raise "
            "warmup_steps",
        )

    # ------------------------------------------------------------ bookkeeping

    def _average(self, name: str, value: float) -> float:
        """Moving average; of the first updates, their plain mean."""
        before = self._averages.get(name, value)
        weight = max(1 / self.thresholds.smoothing_updates, 1 / self._num_updates)
        self._averages[name] = before + weight * (value - before)
        return self._averages[name]

    def _best_so_far(self, name: str, value: float, better: Any) -> float:
        """Best average since the warm-up: the plain means before it are not yet averages."""
        if self._num_updates <= self.thresholds.warmup_updates:
            return value
        self._best[name] = better(self._best.get(name, value), value)
        return self._best[name]


class CodebookMonitors:
    """Raises alarms over the lines of a training whose quantizer has several codebooks.

    A line may hold ``loss``, ``num_codes``, and for each codebook ``code_usage`` and ``perplexity``.

    Args:
        codebook_sizes: entries of each codebook.
        advice: what helps against a collapse.
    """

    def __init__(self, codebook_sizes: tuple[int, ...], advice: str) -> None:
        self._codebooks = [TokenizerMonitor(size, advice=advice) for size in codebook_sizes]
        self._loss = TokenizerMonitor(1)

    def update(self, line: Mapping[str, Any]) -> list[str]:
        """Takes in an update's line; returns the alarms that it sets off."""
        alarms = self._loss.update({"loss": line["loss"]} if "loss" in line else {})
        for number, monitor in enumerate(self._codebooks):
            own = {name: line[name][number] for name in ("code_usage", "perplexity") if name in line}
            found = monitor.update(own | {"num_frames": line["num_codes"]})
            alarms += [f"codebook {number + 1} of {len(self._codebooks)}: {one}" for one in found]
        return alarms

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to raise the alarms of an uninterrupted one."""
        return {"codebooks": [one.state_dict() for one in self._codebooks], "loss": self._loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Inverse of `state_dict`."""
        self._loss.load_state_dict(state["loss"])
        for monitor, own in zip(self._codebooks, state["codebooks"], strict=True):
            monitor.load_state_dict(own)


def _ratio(value: float, limit: float) -> float:
    """``value / limit`` for numbers of 0 and more."""
    return value / max(limit, 1e-12)
