"""What the model will see of a mixture: shares of records and tokens, targets of text and audio, what falls out, and
some records as the model reads them (``audiollm inspect-data mixture.yaml``)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from audiollm.chat.encoded import EncodedConversation
from audiollm.data.collation import IGNORED_LABEL
from audiollm.processing.processor import AudioLLMProcessor
from audiollm.tables import print_table, table_console

from .config import MixtureConfig, read_mixture
from .encoding import encode_each
from .planning import MixturePlan, check_samples, plan_mixture, repeated_files
from .sampling import SourceSample, sample_source, told_reasons
from .sources import MixtureSource, open_sources

FEWEST_TARGETS, MOST_TARGETS = 0.01, 0.99  # shares of tokens; outside, something is likely wrong


@dataclass(frozen=True)
class SourceReport:
    """What the model will see of one source. Figures in tokens are those of the records looked at.

    Attributes:
        name: what the mixture calls it.
        tasks: records of each task.
        num_records: in the source.
        is_exact: or that is an estimate.
        looked_at: records.
        unusable: share of those that cannot be trained on.
        reasons: how many of them for which reason.
        tokens_per_record: mean of the usable ones.
        tokens: of all records of the source, as far as the sample tells.
        share_of_records: of what is drawn.
        share_of_tokens: of what is trained on.
        text_targets: share of its tokens that a model learns to predict, of text.
        audio_targets: the same, of audio.
        codes_of: fingerprints of the audio tokenizers whose codes it holds; "" where records don't say.
        damaged: shards that cannot be read, and why.
        examples: records as the model reads them: ‹what it learns to say›, codes by number.
    """

    name: str
    tasks: dict[str, int]
    num_records: int
    is_exact: bool
    looked_at: int
    unusable: float
    reasons: dict[str, int]
    tokens_per_record: float
    tokens: int
    share_of_records: float
    share_of_tokens: float
    text_targets: float
    audio_targets: float
    codes_of: list[str]
    damaged: list[str]
    examples: list[str]


@dataclass(frozen=True)
class MixtureReport:
    """What the model will see.

    Attributes:
        mixture: the file.
        sources: each of its own.
        records_per_pass: records of one epoch of the mixture.
        tokens_per_pass: about so many tokens.
        text_targets: share of all tokens that a model learns to predict, of text.
        audio_targets: the same, of audio.
        warnings: what is likely not meant.
    """

    mixture: str
    sources: tuple[SourceReport, ...]
    records_per_pass: int
    tokens_per_pass: int
    text_targets: float
    audio_targets: float
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def report_on_mixture(
    path: str | os.PathLike[str], processor: AudioLLMProcessor, *, max_length: int, seed: int = 0, num_examples: int = 1
) -> MixtureReport:
    """Encodes a sample of every source of a mixture, as a training does before its first update.

    Args:
        path: the file of the mixture.
        processor: of the Audio-LLM.
        max_length: most tokens of a record.
        seed: of the run; decides tasks and wordings.
        num_examples: records of each source to show.

    Raises:
        ValueError: for a mixture that cannot work: see `read_mixture`, `check_samples`.
    """
    config = read_mixture(path)
    sources = open_sources(
        config,
        text_tokenizer=processor.tokenizer,
        codebook_size=processor.vocabulary.codebook_size,
        seed=seed,
        skips_damage=True,  # it is told below
    )
    samples = []
    examples = []
    for source in sources:
        places = source.sample(config.check_records)
        found = sample_source(source, places, processor, max_length=max_length)
        samples.append(found)
        shown = [place for place in places if place in found.digests][:num_examples]
        examples.append(
            [rendered(one, processor) for one in encode_each(processor, [*map(source.conversation, shown)])]
        )
    check_samples(sources, samples, processor)
    return _report(os.fspath(path), config, sources, samples, plan_mixture(config, sources, samples), examples)


def _report(
    path: str,
    config: MixtureConfig,
    sources: Sequence[MixtureSource],
    samples: Sequence[SourceSample],
    plan: MixturePlan,
    examples: Sequence[list[str]],
) -> MixtureReport:
    # Tokens per record that is drawn: those that cannot be used give none.
    weighed = [share * found.tokens / found.looked_at for share, found in zip(plan.shares, samples, strict=True)]
    of_tokens = [tokens / sum(weighed) for tokens in weighed]
    reports = [
        _source_report(source, found, share, of_all, shown)
        for source, found, share, of_all, shown in zip(sources, samples, plan.shares, of_tokens, examples, strict=True)
    ]
    text, audio = (
        sum(report.share_of_tokens * getattr(report, name) for report in reports)
        for name in ("text_targets", "audio_targets")
    )
    return MixtureReport(
        mixture=path,
        sources=tuple(reports),
        records_per_pass=plan.pass_size,
        tokens_per_pass=round(sum(weighed) * plan.pass_size),
        text_targets=text,
        audio_targets=audio,
        warnings=(*_warnings(reports, text + audio, config), *repeated_files(sources)),
    )


def _source_report(
    source: MixtureSource, found: SourceSample, share: float, of_tokens: float, examples: list[str]
) -> SourceReport:
    return SourceReport(
        name=source.title,
        tasks=dict(found.tasks),
        num_records=source.counted.count,
        is_exact=source.counted.is_exact,
        looked_at=found.looked_at,
        unusable=1 - found.usable / found.looked_at,
        reasons=dict(found.reasons.most_common()),
        tokens_per_record=found.tokens_per_record,
        tokens=round(source.counted.count * found.tokens / found.looked_at),
        share_of_records=share,
        share_of_tokens=of_tokens,
        text_targets=found.text_targets / found.tokens,
        audio_targets=found.audio_targets / found.tokens,
        codes_of=sorted(found.made_codes),
        damaged=[str(error) for error in source.damaged.values()],
        examples=examples,
    )


def _warnings(reports: Sequence[SourceReport], targets: float, config: MixtureConfig) -> list[str]:
    warnings = []
    if not FEWEST_TARGETS <= targets <= MOST_TARGETS:
        warnings.append(f"{targets:.1%} of all tokens are learned: look at the examples whether that is meant")
    for report in reports:
        if (report.unusable or report.damaged) and config.on_bad == "error":
            warnings.append(f"{report.name}: a training stops at what cannot be used, as on_bad is error")
        if "" in report.codes_of:
            warnings.append(f"{report.name}: codes don't say which audio tokenizer made them, so nothing checks that")
    return warnings


def rendered(encoded: EncodedConversation | ValueError, processor: AudioLLMProcessor) -> str:
    """A record as the model reads it: text as it stands, audio by its codes, ‹…› around what it learns to say."""
    assert isinstance(encoded, EncodedConversation)  # only usable records are shown
    vocabulary = processor.vocabulary
    pieces = []

    def kind(item: tuple[int, int]) -> tuple[bool, bool]:
        token_id, label = item
        return 0 <= token_id - vocabulary.first_code_id < vocabulary.codebook_size, label != IGNORED_LABEL

    for (is_code, is_target), run in itertools.groupby(zip(encoded.token_ids, encoded.labels, strict=True), kind):
        ids = [token_id for token_id, _ in run]
        told = _told_codes(vocabulary.token_ids_to_codes(ids)) if is_code else processor.tokenizer.decode(ids)
        pieces.append(f"‹{told}›" if is_target else told)
    return "".join(pieces)


def _told_codes(codes: Sequence[int]) -> str:
    first = " ".join(map(str, codes[:4]))
    return f"[{len(codes)} codes: {first}{' …' if len(codes) > 4 else ''}]"


def print_report(report: MixtureReport) -> None:
    """Prints a report for people."""
    from rich.table import Table  # not at import: commands that print no table start without it

    table = Table(
        title=f"{report.mixture}: {report.records_per_pass:,} records, about {report.tokens_per_pass:,} tokens a pass"
    )
    for column in (
        *("source", "records", "drawn", "of all tokens", "tokens each", "text learned", "audio learned"),
        *("cannot be used", "looked at", "tasks"),
    ):
        table.add_column(column, justify="left" if column in ("source", "tasks") else "right")
    for one in report.sources:
        table.add_row(
            one.name,
            f"{'' if one.is_exact else '≈ '}{one.num_records:,}",
            *(f"{share:.1%}" for share in (one.share_of_records, one.share_of_tokens)),
            f"{one.tokens_per_record:,.0f}",
            *(f"{share:.1%}" for share in (one.text_targets, one.audio_targets, one.unusable)),
            f"{one.looked_at:,}",
            ", ".join(f"{task} {number}" for task, number in sorted(one.tasks.items())),
        )
    console = table_console()
    print_table(table, console)
    lines = [f"of all tokens, {report.text_targets:.1%} are learned as text and {report.audio_targets:.1%} as audio"]
    for one in report.sources:
        lines += [f"{one.name}: cannot be used: {told}" for told in told_reasons(one.reasons, one.looked_at)]
        lines += [f"{one.name}: {damage}" for damage in one.damaged]
    lines += [f"warning: {warning}" for warning in report.warnings]
    for one in report.sources:
        lines += [f"\n{one.name}:\n{example}" for example in one.examples]
    for line in lines:
        console.print(line, soft_wrap=True)
