"""The table of a study: a row for each figure, a column for each tokenizer, and why a place is empty.

Markdown, HTML and JSON are made of the same rows, so that they say the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from audiollm.benchmarks.codes.features import LATENTS, NO_CODES, REASON

from .cells import Cell
from .measures import SEVERAL_RATES
from .running import EVERYBODY, FACTS, RECONSTRUCTION, SPEED, MeasuredStudy
from .study import ORIGINAL, ReconstructionSettings

MISSING = "–"
NOT_COMPUTED = "cannot be computed of these recordings"
NO_LATENTS = "has codes and no latents"
CODES_ALONE = "gives codes and no features: its histograms alone are probed"
Better = Literal["more", "less"] | None
_DISTANCES = {
    "stoi": ("STOI", "more"),
    "pesq": ("PESQ", "more"),
    "mel_distance": ("mel distance", "less"),
    "mcd": ("MCD (dB)", "less"),
}  # fmt: skip


@dataclass(frozen=True)
class TableCell:
    """A place in a table.

    Attributes:
        value: a number or a text; None where there is none.
        shown: as it stands in the pages.
        reason: why there is none.
        spread: over seeds, where there are several.
        is_best: of its row.
    """

    value: float | str | None
    shown: str
    reason: str | None = None
    spread: float | None = None
    is_best: bool = False


@dataclass(frozen=True)
class TableRow:
    """A figure of all tokenizers.

    Attributes:
        measure: that it is of.
        data: their name in the study; None of what needs none.
        title: for people, with its unit.
        better: which end is good; None where neither is.
        cells: by column.
    """

    measure: str
    data: str | None
    title: str
    better: Better
    cells: Mapping[str, TableCell]


@dataclass(frozen=True)
class TrainedTable:
    """An LLM on each tokenizer, in the shape of the papers' tables: a row for each tokenizer.

    Attributes:
        part: what was trained.
        title: above it.
        columns: of figures.
        rows: cells by column, by tokenizer.
        notes: what must be known.
    """

    part: str
    title: str
    columns: Sequence[str]
    rows: Mapping[str, Mapping[str, TableCell]]
    notes: Sequence[str] = field(default_factory=tuple)


def columns_of(measured: MeasuredStudy) -> list[str]:
    """The columns: the recordings themselves where they are judged, then the tokenizers."""
    has_original = RECONSTRUCTION in measured.study.measures
    return [*([ORIGINAL] if has_original else []), *measured.tokenizers]


def study_rows(measured: MeasuredStudy) -> list[TableRow]:
    """All rows of a study, in the order of its measures."""
    rows = _fact_rows(measured)
    for measure, data, settings in measured.study.parts():
        if measure == SPEED:
            rows += _speed_rows(measured, data)
            continue
        wanted = _WANTED[measure](settings, _figures_of(measured, measure, data))
        rows += [_row(measured, measure, data, *one) for one in wanted]
    return rows


# --- rows -------------------------------------------------------------------------------------------------------------

# Title, which end is good, how it is shown, and where it is among the figures of a cell.
_Wanted = tuple[str, Better, str, Callable[[Mapping[str, Any]], Any]]


def _path(*names: str) -> Callable[[Mapping[str, Any]], Any]:
    def value(figures: Mapping[str, Any]) -> Any:
        found: Any = figures
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    return value


def _fact_rows(measured: MeasuredStudy) -> list[TableRow]:
    latents: list[_Wanted] = [("numbers per frame", None, "{:,}", _latent_size)]
    wanted: list[_Wanted] = [
        ("kind", None, "", _path("kind")),
        ("codebooks", None, "", lambda facts: _sizes(facts["codebook_sizes"])),
        *(latents if any(_has_latents(one.facts) for one in measured.tokenizers.values()) else ()),
        ("frames per second", None, "{:g}", _of_one_rate("frame_rate")),
        ("tokens per second", None, "{:g}", _of_codes("tokens_per_second")),
        ("bit/s", None, "{:,.0f}", _of_codes("bitrate_bps")),
        ("parameters (millions)", None, "{:,.2f}", lambda facts: facts["parameters"] / 1e6),
        ("sound out", None, "", lambda facts: f"{facts['output_sample_rate']} Hz" if facts["can_decode"] else "no"),
    ]
    return [_row(measured, FACTS, None, *one) for one in wanted]


def _of_one_rate(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """A figure that codes of several rates do not have."""
    return lambda figures: _Absent(SEVERAL_RATES) if figures[name] is None else figures[name]


def _has_latents(facts: Mapping[str, Any]) -> bool:
    return facts.get("latent_size") is not None


def _latent_size(facts: Mapping[str, Any]) -> Any:
    return facts["latent_size"] if _has_latents(facts) else _Absent(NO_LATENTS)


def _of_codes(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """A figure that latents do not have."""
    return lambda facts: _Absent(NO_CODES) if _has_latents(facts) else facts[name]


def _sizes(sizes: Sequence[int]) -> str:
    if not sizes:
        return _Absent(NO_CODES)
    same = len(set(sizes)) == 1
    return f"{len(sizes)} × {sizes[0]:,}" if same else " + ".join(f"{size:,}" for size in sizes)


def _codes_wanted(_: Any, figures: Sequence[Mapping[str, Any]]) -> list[_Wanted]:
    least: list[_Wanted] = [("codes in use, least used codebook (%)", "more", "{:.1f}", _least_used)]
    return [
        ("codes in use (%)", "more", "{:.1f}", lambda one: 100 * one["usage"]),
        *(least if any(len(one["by_codebook"]) > 1 for one in figures) else ()),
        ("entropy of a frame (bits)", None, "{:.2f}", _of_one_rate("entropy_bits")),
        ("entropy (bit/s)", None, "{:,.0f}", _path("entropy_bitrate_bps")),
        ("tokens looked at", None, "{:,}", _path("num_tokens")),
    ]


def _least_used(figures: Mapping[str, Any]) -> float:
    return 100 * min(float(codebook["usage"]) for codebook in figures["by_codebook"])


def _reconstruction_wanted(settings: ReconstructionSettings, _: Sequence[Mapping[str, Any]]) -> list[_Wanted]:
    rows: list[_Wanted] = []
    if settings.asr != "none":
        rows += [
            (f"WER (%, {settings.asr})", "less", "{:.1f}", lambda one: _percent(one["wer"])),
            ("WER, none above 100 % (%)", "less", "{:.1f}", lambda one: _percent(one["wer_capped"])),
        ]
    if settings.similarity != "none":
        rows.append((f"similarity of voice ({settings.similarity})", "more", "{:.3f}", _path("similarity")))
    if settings.mos != "none":
        rows.append((f"MOS predicted ({settings.mos})", "more", "{:.2f}", _path("mos")))
    for metric in settings.metrics:
        title, better = _DISTANCES[metric]
        rows.append((title, better, "{:.3f}", _path(metric)))  # type: ignore[arg-type]
    rows.append(("recordings missing", "less", "{:,}", lambda one: len(one["missing"])))
    return rows


def _classes_wanted(_: Any, figures: Sequence[Mapping[str, Any]]) -> list[_Wanted]:
    rows: list[_Wanted] = [
        ("silhouette", "more", "{:.3f}", _path("clustering", "silhouette")),
        ("purity", "more", "{:.3f}", _path("clustering", "purity_mean")),
        ("purity by chance", None, "{:.3f}", _path("clustering", "purity_of_chance")),
        ("mutual information (NMI)", "more", "{:.3f}", _path("clustering", "nmi_mean")),
    ]
    probes = dict.fromkeys(name for one in figures for name in one if name.startswith("probes on "))
    for probe in probes:
        for reader in ("linear", "logistic", "knn"):
            title = f"{reader} {probe.replace('probes', 'probe')} (% right)"
            rows.append((title, "more", "{:.1f}", _probed(probe, f"{reader}_accuracy")))
    if probes:
        rows.append(("always the commonest class (% right)", None, "{:.1f}", _commonest_class))
    return rows


class _Absent(str):
    """Why there is no value."""


def _probed(probe: str, name: str) -> Callable[[Mapping[str, Any]], Any]:
    def value(figures: Mapping[str, Any]) -> Any:
        if probe in figures:
            return _percent(figures[probe][name])
        if REASON in figures["codes"]:
            return _Absent(str(figures["codes"][REASON]))
        return _Absent(NO_LATENTS if probe == f"probes on {LATENTS}" else CODES_ALONE)

    return value


def _commonest_class(figures: Mapping[str, Any]) -> float | None:
    probed = next((one for name, one in figures.items() if name.startswith("probes on ")), None)
    return None if probed is None else _percent(probed["majority_accuracy"])


def _percent_at(*names: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda figures: _percent(_path(*names)(figures))


def _stability_wanted(settings: Any, figures: Sequence[Mapping[str, Any]]) -> list[_Wanted]:
    kinds = {_is_of_latents(one) for one in figures}
    rows: list[_Wanted] = []
    for name in settings.conditions:
        if kinds != {True}:
            for title, key in (("codes changed", "share_changed"), ("unit edit distance", "unit_edit_distance")):
                value = _stable(name, key, 100, absent=NO_CODES, where=True)
                rows.append((f"{name}: {title} (%)", "less", "{:.1f}", value))
        if True in kinds:
            value = _stable(name, "relative_change", 1, absent=NO_LATENTS, where=False)
            rows.append((f"{name}: squared change of latents, over their variance", "less", "{:.3f}", value))
            value = _stable(name, "cosine", 1, absent=NO_LATENTS, where=False)
            rows.append((f"{name}: cosine of latents", "more", "{:.3f}", value))
    return rows


def _is_of_latents(figures: Mapping[str, Any]) -> bool:
    return any(row.get("num_latents") for row in figures["conditions"].values())


def _stable(name: str, key: str, factor: float, *, absent: str, where: bool) -> Callable[[Mapping[str, Any]], Any]:
    """A figure of a condition; absent of tokenizers that have latents, or of those that have none."""

    def value(figures: Mapping[str, Any]) -> Any:
        if _is_of_latents(figures) == where:
            return _Absent(absent)
        found = figures["conditions"][name].get(key)
        return None if found is None else factor * found

    return value


_WANTED: Mapping[str, Callable[[Any, Sequence[Mapping[str, Any]]], list[_Wanted]]] = {
    "codes": _codes_wanted,
    RECONSTRUCTION: _reconstruction_wanted,
    "classes": _classes_wanted,
    "stability": _stability_wanted,
}


def _speed_rows(measured: MeasuredStudy, data: str) -> list[TableRow]:
    figures = measured.figures[Cell(EVERYBODY, SPEED, data)]["tokenizers"]
    rows = []
    for part, title in (("encode", "encoding"), ("decode", "decoding")):
        own = {name: one[part] for name, one in figures.items()}
        wanted: _Wanted = (f"{title} (s of sound per s)", "more", "{:,.1f}", lambda one: 1 / one["real_time_factor"])
        rows.append(_made_row(columns_of(measured), own, SPEED, data, *wanted))
    return rows


def _figures_of(measured: MeasuredStudy, measure: str, data: str | None) -> list[Mapping[str, Any]]:
    found = [one for cell, one in measured.figures.items() if (cell.measure, cell.data) == (measure, data)]
    return [one for one in found if REASON not in one]


def _row(
    measured: MeasuredStudy,
    measure: str,
    data: str | None,
    title: str,
    better: Better,
    form: str,
    value: Callable[[Mapping[str, Any]], Any],
) -> TableRow:
    found = {
        cell.tokenizer: one for cell, one in measured.figures.items() if (cell.measure, cell.data) == (measure, data)
    }
    return _made_row(columns_of(measured), found, measure, data, title, better, form, value)


def _made_row(
    columns: Sequence[str],
    figures: Mapping[str, Mapping[str, Any]],
    measure: str,
    data: str | None,
    title: str,
    better: Better,
    form: str,
    value: Callable[[Mapping[str, Any]], Any],
) -> TableRow:
    cells = {}
    for column in columns:
        own = figures.get(column)
        if own is None:  # the recordings themselves have no codes
            cells[column] = TableCell(None, "", None)
        elif REASON in own:
            cells[column] = TableCell(None, MISSING, str(own[REASON]))
        else:
            cells[column] = _cell(value(own), form)
    return TableRow(measure, data, title, better, _with_best(cells, better))


def _cell(value: Any, form: str) -> TableCell:
    if value is None or isinstance(value, _Absent):
        return TableCell(None, MISSING, str(value or NOT_COMPUTED))
    return TableCell(value, form.format(value) if form else str(value))


def _with_best(cells: Mapping[str, TableCell], better: Better) -> dict[str, TableCell]:
    """Marks the best of the tokenizers, by what is shown: figures that read the same are equally good."""
    values = {
        name: float(cell.value)
        for name, cell in cells.items()
        if isinstance(cell.value, (int, float)) and name != ORIGINAL
    }
    if better is None or len(values) < 2:
        return dict(cells)
    if len({cells[name].shown for name in values}) == 1:
        return dict(cells)  # where all are alike, none is best
    best = (max if better == "more" else min)(values, key=values.__getitem__)
    return {
        name: TableCell(
            cell.value, cell.shown, cell.reason, cell.spread, name in values and cell.shown == cells[best].shown
        )
        for name, cell in cells.items()
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


# --- trained ----------------------------------------------------------------------------------------------------------


def trained_tables(measured: MeasuredStudy, trained: Mapping[Cell, Mapping[str, Any]]) -> list[TrainedTable]:
    """What an LLM reached on each tokenizer, as means over the seeds with their spread; none of none."""
    settings = measured.study.downstream
    if settings is None or not trained:
        return []
    return [_trained_table(part, measured, trained) for part, _ in settings.parts]


def _trained_table(part: str, measured: MeasuredStudy, trained: Mapping[Cell, Mapping[str, Any]]) -> TrainedTable:
    runs = {
        name: [one for cell, one in trained.items() if (cell.tokenizer, cell.measure) == (name, part)]
        for name in measured.tokenizers
    }
    columns: dict[str, _Wanted] = {
        one[0]: one for one in _trained_wanted(part, [one for own in runs.values() for one in own])
    }
    rows: dict[str, dict[str, TableCell]] = {name: {} for name in runs}
    for title, (_, better, form, value) in columns.items():
        column = {name: _over_seeds(own, form, value) for name, own in runs.items()}
        for name, cell in _with_best(column, better).items():
            rows[name][title] = cell
    for name in rows:  # the cost of the tokenizer itself
        rate = _of_codes("tokens_per_second")(measured.tokenizers[name].facts)
        rows[name] = {"tokens/s of sound": _cell(rate, "{:g}"), **rows[name]}
    settings = measured.study.downstream
    assert settings is not None
    seeds = ", ".join(map(str, settings.seeds))
    several = (
        f"means over the seeds {seeds} ± sample standard deviation" if len(settings.seeds) > 1 else f"seed {seeds}"
    )
    notes = [f"The LLM is {settings.llm}; {several}. Every tokenizer has the same data, updates and seeds."]
    notes += _chances([one for own in runs.values() for one in own])
    titles = {
        "understanding": "Understanding: the same LLM on each tokenizer",
        "speech": "Speech: the same LLM on each tokenizer",
    }
    return TrainedTable(part, titles[part], ["tokens/s of sound", *columns], rows, notes)


def _trained_wanted(part: str, runs: Sequence[Mapping[str, Any]]) -> list[_Wanted]:
    loss = _path("loss")
    wanted: list[_Wanted] = [("held-out loss (nats per token of answers)", "less", "{:.3f}", loss)]
    if part == "speech":
        # Other codes have other losses: what compares is what is heard.
        wanted = [("held-out loss (nats per code: does not compare)", None, "{:.3f}", loss)]
        if any("tts" in one for one in runs):
            wanted += [
                ("SIM", "more", "{:.3f}", _path("tts", "similarity")),
                ("WER (%)", "less", "{:.1f}", _percent_at("tts", "wer")),
                ("WER, missing as wrong (%)", "less", "{:.1f}", _percent_at("tts", "wer_missing_as_wrong")),
                ("MOS", "more", "{:.2f}", _path("tts", "mos")),
                ("missing", "less", "{:.1f}", _path("tts", "missing")),
            ]
    for name in ("mmau", "mmar", "mmsu"):
        parts = dict.fromkeys(
            key for one in runs for key in one.get(name, {}) if key not in ("n", "unanswered", "chance")
        )
        # All comes last, as in the papers.
        for key in sorted(parts, key=lambda key: key == "all"):
            wanted.append((f"{name.upper()} {key} (%)", "more", "{:.1f}", _answered(name, key)))
        if parts:
            wanted.append((f"{name.upper()} without a reply", "less", "{:.0f}", _path(name, "unanswered")))
    wanted.append(("training (s)", "less", "{:,.0f}", _path("train_seconds")))
    wanted.append(("tokens of the training", None, "{:,.0f}", _path("train_tokens")))
    return wanted


def _answered(name: str, key: str) -> Callable[[Mapping[str, Any]], Any]:
    """A column of a set of questions; a model that answered none has nothing right in any."""

    def value(figures: Mapping[str, Any]) -> Any:
        own = figures.get(name)
        if own is not None and key not in own and own.get("unanswered") == own.get("n"):
            return 0.0
        return _path(name, key)(figures)

    return value


def _chances(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What guessing reaches."""
    found = []
    for name in ("mmau", "mmar", "mmsu"):
        chance = next((one[name]["chance"] for one in runs if one.get(name, {}).get("chance") is not None), None)
        if chance is not None:
            found.append(f"{name.upper()}: picking any option is right in {chance:.1f} %.")
    return found


def _over_seeds(runs: Sequence[Mapping[str, Any]], form: str, value: Callable[[Mapping[str, Any]], Any]) -> TableCell:
    reasons = [str(one[REASON]) for one in runs if REASON in one]
    if reasons:
        return TableCell(None, MISSING, reasons[0])
    values = [found for one in runs if (found := value(one)) is not None]
    if not values:
        return TableCell(None, MISSING, NOT_COMPUTED)
    mean = statistics.fmean(values)
    if len(values) < 2:
        return TableCell(mean, form.format(mean))
    spread = statistics.stdev(values)
    return TableCell(mean, f"{form.format(mean)} ± {form.format(spread)}", spread=spread)


def reasons_of(cells: Iterable[tuple[str, TableCell]]) -> dict[str, list[str]]:
    """Why places are empty, by name of the tokenizer, each reason once."""
    found: dict[str, list[str]] = {}
    for name, cell in cells:
        if cell.reason is not None and cell.reason not in found.setdefault(name, []):
            found[name].append(cell.reason)
    return {name: reasons for name, reasons in found.items() if reasons}
