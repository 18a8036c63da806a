"""How much of each source a mixture takes: weights by size, and what the sources hold in all."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audiollm.data.streaming.drawing import Draws, MixtureOrder
from audiollm.data.streaming.token_budget import TokenBudgetOrder

from .config import MixtureConfig
from .encoding import RecordProcessor
from .sampling import SourceSample
from .sources import MixtureSource

TARGETS_OF = 100_000  # records, in which a share of a hundredth of a percent is a number still


@dataclass(frozen=True)
class MixturePlan:
    """What is drawn how often.

    Attributes:
        weights: of the sources, as they are drawn.
        sizes: records that each gives in a pass over the mixture: all its epochs, or as many as have its tokens.
        is_exact: or some of the sizes are estimates.
        available: records of all sources together before they have run out; None: at least one never does.
    """

    weights: tuple[float, ...]
    sizes: tuple[int, ...]
    is_exact: bool
    available: int | None

    @property
    def shares(self) -> list[float]:
        """Of the records drawn, while no source has run out."""
        return [weight / sum(self.weights) for weight in self.weights]

    @property
    def pass_size(self) -> int:
        """Records of a pass over the mixture."""
        return sum(self.sizes)

    def num_updates(self, global_batch_size: int, num_epochs: float | None, max_steps: int | None) -> int:
        """Updates of a run.

        Args:
            global_batch_size: records of each.
            num_epochs: passes over the mixture, if ``max_steps`` is not given.
            max_steps: the number itself.

        Raises:
            ValueError: the sources run out before; told only where their sizes are exact.
        """
        if max_steps is None:
            assert num_epochs is not None  # one of them is given
            wanted = math.ceil(num_epochs * self.pass_size)
            num_updates = max(1, math.ceil(wanted / global_batch_size))
        else:
            num_updates, wanted = max_steps, (max_steps - 1) * global_batch_size + 1
        if self.is_exact and self.available is not None and wanted > self.available:
            raise ValueError(
                f"{num_updates} updates of {global_batch_size} records need {wanted:,} or more, but all sources have "
                f"run out after {self.available:,}: raise their epochs or tokens, or make fewer updates"
            )
        return num_updates

    def never_drawn(self, num_records: int) -> list[int]:
        """Numbers of the sources of which a run of so many records is likely to see none."""
        return [number for number, share in enumerate(self.shares) if share * num_records < 1]

    def tokens_per_record(self, samples: Sequence[SourceSample]) -> float:
        """Mean length of the records drawn, those that cannot be used included, which give none."""
        return sum(share * found.tokens / found.looked_at for share, found in zip(self.shares, samples, strict=True))

    def facts(
        self, config: MixtureConfig, sources: Sequence[MixtureSource], samples: Sequence[SourceSample]
    ) -> dict[str, Any]:
        """What a run records of its mixture, and what must not change in it; where files lie may."""
        return {
            "num_records": self.pass_size,
            "mixture": {"shuffle": config.shuffle, "on_bad": config.on_bad},
            "sources": {source.title: self._facts_of(source, samples) for source in sources},
        }

    def _facts_of(self, source: MixtureSource, samples: Sequence[SourceSample]) -> dict[str, Any]:
        config = dataclasses.asdict(source.config)
        kept = {key: config[key] for key in ("tasks", "epochs", "tokens", "text_key", "split")}
        sampled = {"encoded": samples[source.number].fingerprint} if samples else {}
        return {
            **kept,
            "tasks": list(source.config.tasks),
            "weight": self.weights[source.number],
            "num_records": source.counted.count,
            "files": source.identity,
            **sampled,
        }

    def targets(self, samples: Sequence[SourceSample]) -> Counter[str]:
        """Tokens, those that are learned, and parts of answers by modality, in about `TARGETS_OF` records drawn."""
        counts: Counter[str] = Counter()
        for share, found in zip(self.shares, samples, strict=True):
            own = {
                "tokens": found.tokens,
                "targets": found.text_targets + found.audio_targets,
                "text targets": found.text_targets,
                "audio targets": found.audio_targets,
                "text parts": found.answers["text"],
                "audio parts": found.answers["audio"],
            }
            factor = share * TARGETS_OF / found.looked_at
            counts.update({name: math.ceil(factor * number) for name, number in own.items()})
        return counts

    def order(self, sources: Sequence[MixtureSource], *, seed: int, global_batch_size: int) -> MixtureOrder:
        """The updates of a run."""
        draws = self._draws(sources, seed)
        return MixtureOrder(draws, global_batch_size=global_batch_size, pass_size=self.pass_size)

    def token_order(
        self, sources: Sequence[MixtureSource], samples: Sequence[SourceSample], *, seed: int, tokens_per_update: int
    ) -> TokenBudgetOrder:
        """The updates of a run, by tokens; samples tell how many records are likely to be one."""
        return TokenBudgetOrder(
            self._draws(sources, seed),
            tokens_per_update=tokens_per_update,
            round_size=math.ceil(tokens_per_update / self.tokens_per_record(samples)),
            pass_size=self.pass_size,
        )

    def _draws(self, sources: Sequence[MixtureSource], seed: int) -> Draws:
        rows, titles = [source.rows for source in sources], [source.title for source in sources]
        return Draws(rows, titles, self.weights, seed=seed)


def plan_mixture(
    config: MixtureConfig, sources: Sequence[MixtureSource], samples: Sequence[SourceSample]
) -> MixturePlan:
    """Weighs the sources, and limits those that have a number of tokens.

    Args:
        config: the mixture.
        sources: opened.
        samples: of each, what a sample tells; empty if none was taken.

    Raises:
        ValueError: a limit in tokens without a sample.
    """
    sizes, available, is_exact = [], [], True
    for index, source in enumerate(sources):
        limits = [source.counted.count * source.config.epochs] if source.config.epochs is not None else []
        if source.config.tokens is not None:
            if not samples:
                raise ValueError(f"{source.title}: tokens needs check_data=true: lengths are known from a sample")
            source.rows.max_records = math.ceil(source.config.tokens / samples[index].tokens_per_record)
            limits.append(source.rows.max_records)
        sizes.append(min(limits, default=source.counted.count))
        available.append(min(limits) if limits else None)
        is_exact &= source.counted.is_exact
    weights = [
        source.config.weight or size ** (1 / config.temperature) for source, size in zip(sources, sizes, strict=True)
    ]
    limited = [limit for limit in available if limit is not None]
    return MixturePlan(tuple(weights), tuple(sizes), is_exact, sum(limited) if len(limited) == len(sources) else None)


def repeated_files(sources: Sequence[MixtureSource]) -> list[str]:
    """What is to be said of files that two sources read for the same task: their records come more often than meant."""
    told = []
    for one, other in itertools.combinations(sources, 2):
        tasks = sorted(set(one.config.tasks) & set(other.config.tasks))
        if tasks and (common := sorted(one.files & other.files)):
            more = f" and {len(common) - 1} more" if len(common) > 1 else ""
            told.append(
                f"{common[0]}{more} belongs to {one.title} and to {other.title}, both with the task {tasks[0]}: its "
                "records are drawn for both"
            )
    return told


def check_samples(
    sources: Sequence[MixtureSource], samples: Sequence[SourceSample], processor: RecordProcessor
) -> None:
    """Refuses a source that gives nothing, and codes of several audio tokenizers.

    Raises:
        ForeignCodesError: a ValueError: a shard says that its codes are of another audio tokenizer than the LLM's.
        ValueError: naming the source, and why its records cannot be used.
    """
    makers: dict[str, str] = {}
    for source, found in zip(sources, samples, strict=True):
        for maker, shard in source.code_makers().items():
            processor.check_maker(maker, shard)
        if not found.usable:
            reason, number = (found.reasons.most_common(1) or [("cannot be read", found.looked_at)])[0]
            raise ValueError(
                f"{source.title}: none of the {found.looked_at} records looked at can be used; {number} times: {reason}"
            )
        for maker in (*source.code_makers(), *found.made_codes):
            if maker and maker not in processor.accepted_codes:
                makers.setdefault(maker, source.title)
    if len(makers) > 1:
        (one, first), (other, second) = list(makers.items())[:2]
        raise ValueError(
            f"codes of two audio tokenizers: {first} ({one[:12]}…) and {second} ({other[:12]}…): tokenize all "
            "recordings with the LLM's own, or accept both fingerprints if they give the same codes (accept_codes_of)"
        )
