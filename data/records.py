"""What became of records that were made from others: how many of each sort, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class RecordReport:
    """Counts, for the person who made the records.

    Attributes:
        records: records made, by sort.
        left_out: sources that gave none, by reason.
        examples: the place of the first source of each reason.
    """

    records: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def leave_out(self, reason: str, where: str) -> None:
        """Counts a source that gives no record."""
        self.left_out[reason] += 1
        self.examples.setdefault(reason, where)

    def __str__(self) -> str:
        made = ", ".join(f"{count} {name}" for name, count in self.records.most_common())
        lines = [f"{sum(self.records.values())} records" + (f" ({made})" if made else "")]
        lines += [
            f"left out: {n} ({reason}; first {self.examples[reason]})" for reason, n in self.left_out.most_common()
        ]
        return "\n".join(lines)
