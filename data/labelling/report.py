"""Report of a labelled corpus: clips, refusals, tokens and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .models import ROLES, Usage

_PER = 1_000_000  # tokens, as prices are given


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in any currency."""

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        if self.prompt < 0 or self.completion < 0:
            raise ValueError(f"prices {self.prompt}, {self.completion}: use 0 or more")


@dataclass
class LabellingReport:
    """What labelling made of a corpus. All but the time covers the whole output, resumed parts too.

    Attributes:
        output: the file.
        facts: models, settings and the hashes of the prompts.
        prices: by role ("captioner", "structurer").
        records: labelled clips, and of what type of sound they are.
        seconds: of audio in them.
        rejected: clips without labels that hold, and for what reasons.
        repaired: labelled clips whose reply had to be repaired in form.
        asked_again: labelled clips whose first reply did not hold.
        usage: requests and tokens by role, those of refused clips too.
        resumed: clips that earlier runs had done.
        wall_seconds: of this run.
    """

    output: str
    facts: dict[str, str] = field(default_factory=dict)
    prices: dict[str, Prices] = field(default_factory=dict)
    records: int = 0
    sound_types: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    asked_again: int = 0
    usage: dict[str, Usage] = field(default_factory=lambda: {role: Usage() for role in ROLES})
    resumed: int = 0
    wall_seconds: float = 0.0

    def add(self, record: Mapping[str, Any]) -> None:
        """Counts a labelled clip."""
        self.records += 1
        self.sound_types[record["sound_type"]] += 1
        self.seconds += record["duration_seconds"]
        labelling = record["labelling"]
        self.repaired += bool(labelling.get("repairs"))
        self.asked_again += labelling["structurer"]["requests"] > 1
        self._add_usage(labelling)

    def reject(self, entry: Mapping[str, Any]) -> None:
        """Counts a clip that was refused."""
        self.rejected += 1
        self.reasons[_kind(entry["reason"])] += 1
        self._add_usage(entry.get("labelling", {}))

    def _add_usage(self, labelling: Mapping[str, Any]) -> None:
        for role in ROLES:
            self.usage[role].add(labelling.get(role, {}))

    @property
    def cost(self) -> float | None:
        """What all tokens cost; None without prices."""
        if not self.prices:
            return None
        return sum(
            (self.usage[role].prompt_tokens * price.prompt + self.usage[role].completion_tokens * price.completion)
            / _PER
            for role, price in self.prices.items()
        )

    @property
    def progress(self) -> dict[str, str]:
        """For a progress bar."""
        tokens = sum(used.prompt_tokens + used.completion_tokens for used in self.usage.values())
        shown = {"refused": str(self.rejected), "tokens": f"{tokens:,}"}
        return shown if self.cost is None else shown | {"cost": f"{self.cost:.2f}"}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {name: dict(getattr(self, name).most_common()) for name in ("sound_types", "reasons")}
        return {**asdict(self), **counts, "cost": self.cost}

    def __str__(self) -> str:
        types = ", ".join(f"{count} {name}" for name, count in self.sound_types.most_common())
        lines = [
            f"{self.records} clips labelled, {self.seconds / 60:.1f} min ({types}); "
            f"{self.repaired} replies repaired, {self.asked_again} clips asked for again"
        ]
        if self.rejected:
            shown = "; ".join(f"{count} × {reason}" for reason, count in self.reasons.most_common(5))
            lines.append(f"{self.rejected} refused: {shown}")
        for role, used in self.usage.items():
            if used.requests:
                lines.append(
                    f"{role} {self.facts.get(role, '')}: {used.requests:,} requests, {used.retries:,} retries, "
                    f"{used.prompt_tokens:,} tokens in, {used.completion_tokens:,} out"
                )
        if self.cost is not None:
            lines.append(f"cost {self.cost:.2f}")
        return "\n".join(lines)


def _kind(reason: str) -> str:
    """The field or the first words of a reason, so that the same one counts together."""
    return reason.split(", ")[0].split(" is ")[0].split(":")[0][:80]
