"""Records to auditory sentences: which offers go together follows from the seed and their places alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.manifest import Manifest, RecordError, open_manifest
from audiollm.data.records import RecordReport, write_records
from audiollm.data.sampling import draw, seed_of
from audiollm.data.unread_keys import unread_keys, warn_of_unread_keys

from .sources import Offer, UnusableError, read_offer
from .templates import FORMS, TEMPLATES, Form, TemplateName, segments_of

TASK = "auditory_sentence"
FEWEST_SEGMENTS, MOST_SEGMENTS = 2, 8  # as the paper has them


@dataclass(frozen=True, kw_only=True)
class SentenceSettings:
    """Which records become sentences, and how long these are.

    Attributes:
        templates: which forms are made; every record is used once in each that it fits.
        split: use records of this split only; None: all.
        min_segments: fewest recordings and texts of a sentence.
        max_segments: most of them.
        min_seconds: shorter recordings are left out.
        max_seconds: longer ones are left out, not cut.
        longest_seconds: most seconds of sound of a sentence, as far as they are known.
        seed: decides which records go together, and how many.
    """

    templates: tuple[TemplateName, ...] = TEMPLATES
    split: str | None = None
    min_segments: int = FEWEST_SEGMENTS
    max_segments: int = MOST_SEGMENTS
    min_seconds: float = 0.3
    max_seconds: float = 30.0
    longest_seconds: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = set(self.templates) - set(TEMPLATES)
        if unknown or not self.templates or len(set(self.templates)) < len(self.templates):
            raise ValueError(
                f"templates={', '.join(self.templates) or 'none'}: name each of {', '.join(TEMPLATES)} at most once"
            )
        if not FEWEST_SEGMENTS <= self.min_segments <= self.max_segments:
            raise ValueError(
                f"min_segments={self.min_segments}, max_segments={self.max_segments}: use {FEWEST_SEGMENTS} <= "
                "min_segments <= max_segments"
            )
        if not 0 <= self.min_seconds <= self.max_seconds <= self.longest_seconds:
            raise ValueError(
                f"min_seconds={self.min_seconds}, max_seconds={self.max_seconds}, longest_seconds="
                f"{self.longest_seconds}: use 0 <= min_seconds <= max_seconds <= longest_seconds"
            )


@dataclass
class SentenceReport(RecordReport):
    """What became of the records; sentences are counted by template.

    Attributes:
        segments: sentences by their number of segments.
        seconds: of audio in the sentences, as far as it is known.
        unused: by template, why usable records are in no sentence of it.
        named: every record that is left out, with its reason.
    """

    segments: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    unused: dict[str, Counter[str]] = field(default_factory=dict)
    named: list[dict[str, str]] = field(default_factory=list)

    def leave_out(self, reason: str, where: str) -> None:
        super().leave_out(reason, where)
        self.named.append({"record": where, "reason": reason})

    def not_used(self, template: str, reason: str) -> None:
        """Counts a record that is in no sentence of a template."""
        self.unused.setdefault(template, Counter())[reason] += 1

    def _made(self) -> str:
        lengths = ", ".join(f"{count} of {number}" for number, count in sorted(self.segments.items()))
        return f"{super()._made()}, {self.seconds / 60:.1f} min; segments: {lengths or 'none'}"

    def __str__(self) -> str:
        unused = [
            f"not used for {template}: " + ", ".join(f"{count} ({reason})" for reason, count in reasons.most_common())
            for template, reasons in self.unused.items()
        ]
        return "\n".join([super().__str__(), *unused])


def write_sentences(
    sources: Sequence[Any], output: str | os.PathLike[str], settings: SentenceSettings | None = None
) -> SentenceReport:
    """Writes auditory sentences as conversation records (JSONL); the file appears whole or not at all.

    Records that are left out are listed in ``OUTPUT.left_out.jsonl``, each with its reason.

    Args:
        sources: manifests of clips and conversations, see `sentences`.
        output: the file; paths of audio below its folder are written relative to it, others absolute.
        settings: which records, and how.

    Raises:
        ValueError: if no sentence can be made; the message says why.
        RecordError: if a source cannot be read.
    """
    report = SentenceReport()
    write_records(sentences(sources, settings, report=report), output, report, if_none="no sentence can be made")
    listed = f"{os.fspath(output)}.left_out.jsonl"
    if report.named:
        write_json_lines(listed, report.named)
    elif os.path.exists(listed):
        os.remove(listed)  # of an earlier output under this name
    return report


def sentences(
    sources: Sequence[Any], settings: SentenceSettings | None = None, *, report: SentenceReport | None = None
) -> Iterator[dict[str, Any]]:
    """Makes auditory sentences of clips and conversations.

    Records are read twice: to find out what each offers, and when their sentence is made. Of each, a few numbers and
    its group are kept in memory.

    Args:
        sources: each anything that `audiollm.data.manifest.open_manifest` opens.
        settings: which records, and how; None for defaults.
        report: is filled in while the sentences are made.

    Yields:
        Conversation records with ``task`` (auditory_sentence), ``template``, ``num_segments`` and ``sources``: for each
        record that is part of it its place, and what it says of licence and origin.

    Raises:
        RecordError: if a source cannot be read.
    """
    settings = settings or SentenceSettings()
    report = SentenceReport() if report is None else report
    shelf = _Shelf([open_manifest(source) for source in sources], settings, report)
    for template in settings.templates:
        form, number = FORMS[template], 0
        for places in shelf.together(template, form):
            for chosen in shelf.cut(template, form, places):
                key = f"{settings.seed} {template} {shelf.where(chosen[0])}"
                made = form.make([shelf.read(place) for place in chosen], key)
                report.records[template] += 1
                report.segments[made.segments] += 1
                report.seconds += sum(one.seconds or 0.0 for one in made.used)
                yield {
                    "id": f"{template}-{number:06d}",
                    "task": TASK,
                    "template": template,
                    "num_segments": made.segments,
                    "messages": made.messages,
                    "sources": [one.provenance() for one in made.used],
                }
                number += 1


_Place = tuple[int, int]
"""Number of a manifest, and of a record in it."""


@dataclass(frozen=True)
class _Noted:
    """What is kept of a record between the two readings."""

    place: _Place
    seconds: float
    segments: int  # of a conversation; of a piece 1, or 2 with words
    group: str | None
    fits: frozenset[str]


class _Shelf:
    """The records that can be used, and how they go together."""

    def __init__(self, manifests: Sequence[Manifest], settings: SentenceSettings, report: SentenceReport) -> None:
        self._manifests, self._settings, self._report = manifests, settings, report
        self._noted: dict[_Place, _Noted] = {}
        for number, manifest in enumerate(manifests):
            unread: Counter[str] = Counter()
            for index in range(len(manifest)):
                self._look_at((number, index))
                unread.update(self._unread(number, index))
            warn_of_unread_keys(manifest.name, unread)

    def where(self, place: _Place) -> str:
        """File and line of a record."""
        return self._manifests[place[0]].where(place[1])

    def read(self, place: _Place) -> Offer:
        """What the record at a place offers."""
        manifest, index = self._manifests[place[0]], place[1]
        try:
            record = manifest[index]
        except RecordError as error:
            raise UnusableError(f"the record {error.reason}") from error
        return read_offer(record, manifest.where(index), manifest.base_dir(index), self._settings.split)

    def _unread(self, number: int, index: int) -> list[str]:
        place = (number, index)
        if place not in self._noted or "conversation" in self._noted[place].fits:
            return []
        return unread_keys(self._manifests[number][index])

    def _look_at(self, place: _Place) -> None:
        settings = self._settings
        try:
            offer = self.read(place)
            _check_length(offer, settings)
            reasons = {name: FORMS[name].takes(offer) for name in settings.templates}
            fits = frozenset(name for name, reason in reasons.items() if reason is None)
            if not fits:
                told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
                raise UnusableError(f"fits no template ({told})")
        except UnusableError as error:
            self._report.leave_out(str(error), self.where(place))
            return
        for name, reason in reasons.items():
            if reason is not None:
                self._report.not_used(name, reason)
        segments = segments_of(offer.turns) if offer.turns else 1 + bool(offer.words)
        self._noted[place] = _Noted(place, offer.seconds or 0.0, segments, offer.group, fits)

    def together(self, template: TemplateName, form: Form) -> Iterator[list[_Noted]]:
        """Records that may be in one sentence, in the order in which they are taken."""
        fitting = [one for one in self._noted.values() if template in one.fits]
        if template != "continuation":
            yield sorted(fitting, key=lambda one: seed_of(self._settings.seed, template, self.where(one.place)))
            return
        groups: dict[str, list[_Noted]] = {}
        for one in fitting:
            assert one.group is not None  # as its form asks
            groups.setdefault(one.group, []).append(one)  # in the order of the file, which is that of the recording
        yield from groups.values()

    def cut(self, template: TemplateName, form: Form, noted: Sequence[_Noted]) -> Iterator[list[_Place]]:
        """Takes one sentence after another from the front; what is too little for one is counted."""
        settings, rest = self._settings, list(noted)
        while rest:
            key = f"{settings.seed} {self.where(rest[0].place)}"
            wanted = settings.min_segments + draw(template, key, settings.max_segments - settings.min_segments + 1)
            chosen, segments, seconds = [rest.pop(0)], 0, 0.0
            segments, seconds = self._segments(form, chosen[0]), chosen[0].seconds
            while rest:
                more, longer = self._segments(form, rest[0]), rest[0].seconds
                too_much = segments + more > settings.max_segments or seconds + longer > settings.longest_seconds
                if too_much or (segments >= wanted and len(chosen) >= form.fewest):
                    break
                chosen.append(rest.pop(0))
                segments, seconds = segments + more, seconds + longer
            if len(chosen) < form.fewest or not settings.min_segments <= segments <= settings.max_segments:
                reason = "too many segments" if segments > settings.max_segments else "too few segments with neighbours"
                for _ in chosen:
                    self._report.not_used(template, reason)
                continue
            yield [one.place for one in chosen]

    def _segments(self, form: Form, noted: _Noted) -> int:
        return form.per_offer if form.per_offer == 2 else noted.segments


def _check_length(offer: Offer, settings: SentenceSettings) -> None:
    if offer.seconds is None:
        return
    if offer.seconds < settings.min_seconds:
        raise UnusableError(f"shorter than {settings.min_seconds:g} s")
    if offer.seconds > settings.max_seconds:
        raise UnusableError(f"longer than {settings.max_seconds:g} s")
