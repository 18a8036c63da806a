"""The figures of the experiment's runs as means with spread, and what they say of the paper's claims."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Runs = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Figures of a run by variant and seed."""

AS_CLAIMED, OPPOSITE, WITHIN_SPREAD, UNKNOWN = "as claimed", "the opposite", "within the spread", "one seed only"


@dataclass(frozen=True)
class Metric:
    """A figure of a run.

    Attributes:
        title: in tables.
        path: where it is in the run's figures.
        is_share: shown in percent.
        higher_is_better: None where neither is.
    """

    title: str
    path: tuple[str, ...]
    is_share: bool = False
    higher_is_better: bool | None = True

    def of(self, figures: Mapping[str, Any]) -> float | None:
        """Its value; None where the run has none."""
        value: Any = figures
        for key in self.path:
            if not isinstance(value, Mapping) or value.get(key) is None:
                return None
            value = value[key]
        return float(value)

    def show(self, value: float | None, *, signed: bool = False) -> str:
        """A value in a table; a dash for None."""
        if value is None:
            return "–"
        sign = "+" if signed and value >= 0 else ""
        return f"{sign}{100 * value:.1f} %" if self.is_share else f"{sign}{value:.{decimals(value)}f}"


def decimals(value: float) -> int:
    """How many decimals of a number are shown."""
    return 0 if abs(value) >= 100 else 3


SILHOUETTE = Metric("silhouette", ("clustering", "silhouette"))
PURITY = Metric("purity", ("clustering", "purity_mean"))
CLASS_PROBE = Metric("class probe", ("sound_class_probes", "entries", "logistic_accuracy"), is_share=True)
CLASS_KNN = Metric("class kNN", ("sound_class_probes", "histogram", "knn_accuracy"), is_share=True)
TYPE_PROBE = Metric("type probe", ("sound_type_probes", "entries", "logistic_balanced_accuracy"), is_share=True)
WER = Metric("WER", ("wer",), is_share=True, higher_is_better=False)

MAIN_METRICS = (
    SILHOUETTE,
    PURITY,
    Metric("NMI", ("clustering", "nmi_mean")),
    CLASS_PROBE,
    CLASS_KNN,
    TYPE_PROBE,
    WER,
    Metric("WER, stage 1", ("wer_continuous",), is_share=True, higher_is_better=False),
)
CODE_METRICS = (
    Metric("codes in use", ("codes", "usage"), is_share=True, higher_is_better=None),
    Metric("perplexity", ("codes", "perplexity"), higher_is_better=None),
    Metric("quantization error", ("codes", "quantization_error"), is_share=True, higher_is_better=False),
)
SAP_METRICS = (
    Metric("valid JSON", ("sap", "valid_json"), is_share=True),
    Metric("readable", ("sap", "readable"), is_share=True),
    Metric("WER in the SAP", ("sap", "wer"), is_share=True, higher_is_better=False),
    Metric("gender", ("sap", "gender_accuracy"), is_share=True),
    Metric("event F1", ("sap", "event_f1"), is_share=True),
)
PROBE_VIEWS = ("histogram", "entries", "features")
PROBE_READERS = ("linear", "logistic", "knn")


def gate_metric(kind: str) -> Metric:
    """Mean gate on a kind of sound."""
    return Metric(kind, ("gates", "by_kind", kind), higher_is_better=None)


def mix_metric(snr_db: str) -> Metric:
    """Mean gate of speech that is so much louder than the music in it."""
    return Metric(f"{snr_db} dB", ("gates", "by_snr_db", snr_db), higher_is_better=None)


def probe_metric(what: str, view: str, reader: str, *, balanced: bool = False) -> Metric:
    """Accuracy of a probe, of "class" or "type", on a view of the clips."""
    name = f"{reader}_{'balanced_' if balanced else ''}accuracy"
    return Metric(f"{reader} on {view}", (f"sound_{what}_probes", view, name), is_share=True)


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds."""

    mean: float
    deviation: float | None
    """Standard deviation over the seeds, of the sample; None for one seed."""
    num_seeds: int

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Mean and deviation of the seeds' values, at least one."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def spread_of(metric: Metric, runs: Mapping[str, Mapping[str, Any]]) -> Spread | None:
    """A metric over the seeds of a variant; None if no run has it."""
    values = [value for figures in runs.values() if (value := metric.of(figures)) is not None]
    return Spread.of(values) if values else None


def show_spread(metric: Metric, spread: Spread | None, *, signed: bool = False) -> str:
    """``0.123 ± 0.004``, or a dash."""
    if spread is None:
        return "–"
    shown = metric.show(spread.mean, signed=signed)
    if spread.deviation is None:
        return shown
    deviation = f"{100 * spread.deviation:.1f}" if metric.is_share else f"{spread.deviation:.{decimals(spread.mean)}f}"
    return f"{shown.removesuffix(' %')} ± {deviation}{' %' if metric.is_share else ''}"


# ---------------------------------------------------------------------- claims


@dataclass(frozen=True)
class Claim:
    """Something that the paper says, and what was measured of it.

    Attributes:
        text: the claim.
        metric: what it is about.
        effect: the difference it speaks of, over the seeds.
        expected: sign of the difference if it holds; 0 where the paper claims no difference.
        num_agreeing: seeds whose difference has the expected sign.
    """

    text: str
    metric: Metric
    effect: Spread
    expected: int
    num_agreeing: int

    @property
    def verdict(self) -> str:
        """Whether the claim shows here: only a mean beyond one standard deviation counts."""
        if self.effect.deviation is None:
            return UNKNOWN
        if abs(self.effect.mean) <= self.effect.deviation:
            return WITHIN_SPREAD
        if self.expected == 0:
            return "higher" if self.effect.mean > 0 else "lower"
        return AS_CLAIMED if self.effect.mean * self.expected > 0 else OPPOSITE


def find_claims(runs: Runs) -> list[Claim]:
    """All claims that the runs can say something about.

    An effect of SAP is the difference between ``sap`` and ``asr`` of the same seed, as the mean over without and with
    SAE; an effect of SAE likewise.
    """
    claims: list[Claim | None] = []
    for metric, name in ((SILHOUETTE, "silhouette"), (PURITY, "purity"), (CLASS_PROBE, "class probe")):
        claims.append(_claim(f"SAP raises the {name} of sound classes", metric, _effects_of_sap(runs, metric), 1))
        claims.append(_claim(f"SAE raises the {name} of sound classes", metric, _effects_of_sae(runs, metric), 1))
    claims.append(_claim("SAP changes the word error rate (no claim)", WER, _effects_of_sap(runs, WER), 0))
    claims.append(_claim("SAE changes the word error rate (paper: hardly)", WER, _effects_of_sae(runs, WER), 0))
    for variant in ("asr+sae", "sap+sae"):
        seeds = list(runs.get(variant, {}).values())
        music, speech = gate_metric("music"), gate_metric("speech")
        differences = _differences([(music.of(figures), speech.of(figures)) for figures in seeds])
        claims.append(_claim(f"The gate opens more on music than on speech ({variant})", music, differences, 1))
        differences = _differences([_ends_of_mixes(figures) for figures in seeds])
        claims.append(_claim(f"The gate opens as music drowns speech ({variant})", music, differences, 1))
    return [claim for claim in claims if claim is not None]


def snrs_of(figures: Mapping[str, Any]) -> list[str]:
    """Levels of the mixes in a run's figures, ascending."""
    return sorted(((figures.get("gates") or {}).get("by_snr_db") or {}), key=float)


def _claim(text: str, metric: Metric, differences: list[float], expected: int) -> Claim | None:
    if not differences:
        return None
    agreeing = sum(difference * expected > 0 for difference in differences)
    return Claim(text, metric, Spread.of(differences), expected, agreeing)


def _effects_of_sap(runs: Runs, metric: Metric) -> list[float]:
    return list(_paired_effects(runs, metric, (("sap", "asr"), ("sap+sae", "asr+sae"))))


def _effects_of_sae(runs: Runs, metric: Metric) -> list[float]:
    return list(_paired_effects(runs, metric, (("asr+sae", "asr"), ("sap+sae", "sap"))))


def _paired_effects(runs: Runs, metric: Metric, pairs: tuple[tuple[str, str], ...]) -> Iterator[float]:
    """One mean difference for each seed that has all variants of the pairs."""
    variants = {variant for pair in pairs for variant in pair}
    if not variants <= runs.keys():
        return
    for seed in sorted(set.intersection(*(set(runs[variant]) for variant in variants)), key=int):
        values = {variant: metric.of(runs[variant][seed]) for variant in variants}
        differences = _differences([(values[one], values[other]) for one, other in pairs])
        if len(differences) == len(pairs):
            yield statistics.fmean(differences)


def _differences(pairs: list[tuple[float | None, float | None]]) -> list[float]:
    return [one - other for one, other in pairs if one is not None and other is not None]


def _ends_of_mixes(figures: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Gate where the music is loudest, and where it is softest."""
    snrs = snrs_of(figures)
    if len(snrs) < 2:
        return None, None
    return mix_metric(snrs[0]).of(figures), mix_metric(snrs[-1]).of(figures)
