"""Commands on labels: making Semantic-Acoustic Primitives, checking them with people, and scoring predicted ones."""

from __future__ import annotations

import inspect
import json as jsonlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from audiollm.data.files.replacing import refuse_existing
from audiollm.facts import show_facts
from audiollm.program import as_option

from .console import write_line

CAPTIONER_OPTIONS = ("captioner_model", "captioner_key", "captioner_prices")
MODEL_OPTIONS = (
    "captioner", "structurer_model", "structurer_key", "structurer_prices", "mono", "max_seconds", "max_asks",
    "concurrency", "max_retries", "timeout_seconds", "max_failures", "device",
)  # fmt: skip
"""What rules have no use for."""


def label(
    source: str,
    output: str,
    *,
    rules: str | None = None,
    structurer: str | None = None,
    structurer_model: str | None = None,
    structurer_key: str | None = None,
    structurer_prices: tuple[float, float] | None = None,
    captioner: str | None = None,
    captioner_model: str | None = None,
    captioner_key: str | None = None,
    captioner_prices: tuple[float, float] | None = None,
    mono: Literal["first", "mean"] | None = None,
    max_seconds: float = 30.0,
    max_asks: int = 2,
    concurrency: int = 8,
    max_retries: int = 8,
    timeout_seconds: float = 120.0,
    max_failures: int = 10,
    split: str | None = None,
    device: str | None = None,
    num_shards: int = 1,
    shard: int = 0,
    audit: int = 0,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Label clips with Semantic-Acoustic Primitives: by models, or by rules where a corpus says what is heard.

    Without --structurer, rules label the clips and nothing leaves this machine. A model is the URL of an
    OpenAI-compatible endpoint, or hf: and a folder or Hub id that transformers runs here.

    Args:
        source: clips with audio and, for speech, their texts: a corpus folder, a manifest, or audio files.
        output: records for training a tokenizer (.jsonl; models may also write .parquet).
        rules: what the metadata mean, by the name of a corpus; as each clip's id says, if not given.
        structurer: model that turns transcript and description into a record.
        structurer_model: its name at the endpoint; the only one there is, if not given.
        structurer_key: environment variable with the key for the endpoint.
        structurer_prices: cost of a million tokens in and out, such as [0.1, 0.4], for the report.
        captioner: model that hears a clip and describes it; captions of the source are used, if not given.
        captioner_model: its name at the endpoint.
        captioner_key: environment variable with the key for the endpoint.
        captioner_prices: cost of a million tokens in and out.
        mono: which channel of a clip models hear: the first one, or the mean of all (if not given).
        max_seconds: longer clips are refused, not cut.
        max_asks: the structurer is asked so often before a clip is refused.
        concurrency: clips labelled at a time.
        max_retries: so often a failed request is repeated.
        timeout_seconds: a request without an answer for so long has failed.
        max_failures: stop when so many clips in a row get no answer; run again to go on.
        split: use clips of this split only.
        device: torch device of local models; the first GPU when there is one.
        num_shards: cut the source into this many parts, for as many processes or machines.
        shard: which part this process takes, from 0.
        audit: also write a sheet with so many sampled clips for people to check, in OUTPUT's name with _audit.
        overwrite: replace an output that exists.
        json: print the report as JSON.
    """
    given = dict(locals())

    from audiollm.data.resumable_output import JSON_LINES_SUFFIXES, checked_ending, shard_path

    path = shard_path(output, shard, num_shards)
    audit_folder = path.with_name(f"{path.stem}_audit")
    if audit:
        _refuse_sheets(audit_folder, overwrite)

    if structurer is None:
        from audiollm.data.labelling.by_rules import label_by_rules

        _refuse_given(given, (*CAPTIONER_OPTIONS, *MODEL_OPTIONS), "--structurer, a model that writes records")
        if num_shards != 1 or shard:
            raise ValueError("--num-shards is for models; rules take a moment")
        refuse_existing(checked_ending(path, JSON_LINES_SUFFIXES), overwrite)
        report: Any = label_by_rules(source, path, rules=rules, split=split)
    else:
        from audiollm.data.chat.base import EndpointSettings
        from audiollm.data.chat.opening import open_chat_model
        from audiollm.data.labelling.by_models import label_corpus
        from audiollm.data.labelling.models import ModelLabeller, ModelLabelling
        from audiollm.data.labelling.report import Prices
        from audiollm.environment import find_device

        if rules is not None:
            raise ValueError("give --rules or --structurer, not both")
        if captioner is None:
            _refuse_given(given, CAPTIONER_OPTIONS, "--captioner, a model that hears clips")
        refuse_existing(checked_ending(path), overwrite)
        torch_device = find_device(device)
        endpoint = EndpointSettings(timeout_seconds=timeout_seconds, max_retries=max_retries)
        writes = open_chat_model(
            structurer, structurer_model, key_variable=structurer_key, device=torch_device, settings=endpoint
        )
        hears = captioner and open_chat_model(
            captioner, captioner_model, key_variable=captioner_key, hears=True, device=torch_device, settings=endpoint
        )
        labelling = ModelLabelling(max_seconds=max_seconds, max_asks=max_asks, mono=mono)
        prices = {"structurer": structurer_prices, "captioner": captioner_prices}
        report = label_corpus(
            source,
            output,
            ModelLabeller(writes, hears or None, labelling),
            concurrency=concurrency,
            max_failures=max_failures,
            num_shards=num_shards,
            shard=shard,
            split=split,
            overwrite=overwrite,
            prices={role: Prices(*price) for role, price in prices.items() if price is not None},
        )
    write_line(jsonlib.dumps(_as_json(report), ensure_ascii=False) if json else str(report))
    if audit:
        audit_labels(str(path), str(audit_folder), num_clips=audit, mono=mono or "mean", overwrite=overwrite)


def _refuse_given(given: Mapping[str, Any], names: Sequence[str], wanted: str) -> None:
    """Raises ValueError for an option of `label` that has no effect without another one."""
    parameters = inspect.signature(label).parameters
    for name in names:
        if given[name] != parameters[name].default:
            raise ValueError(f"{as_option(name)} needs {wanted}")


def _as_json(report: Any) -> dict[str, Any]:
    return report.to_dict() if hasattr(report, "to_dict") else vars(report)


def _refuse_sheets(folder: Path, overwrite: bool) -> None:
    """Raises ValueError where sheets are that people may have filled in."""
    from audiollm.benchmarks.sap.audit import sheet_paths

    for path in sheet_paths(folder):
        refuse_existing(path, overwrite)


def audit_labels(
    labels: str,
    output_dir: str,
    *,
    num_clips: int = 100,
    seed: int = 0,
    mono: Literal["first", "mean"] = "mean",
    overwrite: bool = False,
) -> None:
    """Write a sheet for people to check labels: an HTML page that plays each clip, and the same as CSV.

    Args:
        labels: records that `audiollm label` wrote.
        output_dir: folder of audit.html and audit.csv.
        num_clips: so many sampled clips.
        seed: of the sample.
        mono: which channel of a clip the page plays: the first one, or the mean of all.
        overwrite: replace sheets that exist, and what people wrote into them.
    """
    from audiollm.benchmarks.sap.audit import write_audit

    _refuse_sheets(Path(output_dir), overwrite)
    count = write_audit(labels, Path(output_dir), num_clips=num_clips, seed=seed, mono=mono)
    write_line(f"wrote {count} clips to {Path(output_dir) / 'audit.html'} and audit.csv")


def audit_verdicts(sheets: list[str], *, json: bool = False) -> None:
    """Count what people said of labels: the share of each field that is right, with its 95 % interval.

    Args:
        sheets: one or more filled-in audit.csv, or what the page audit.html saved.
        json: print the counts as JSON.
    """
    from audiollm.benchmarks.sap.audit import summarize_audits

    fields = summarize_audits(map(Path, sheets))
    if json:
        write_line(jsonlib.dumps({name: vars(field) | {"share": field.share} for name, field in fields.items()}))
        return
    lines = {
        name: f"{field.share:.1%} right of {field.judged} ({field.low:.1%} to {field.high:.1%})"
        for name, field in fields.items()
    }
    show_facts(lines, title="labels found right")


def score_sap(
    predictions: str,
    references: str,
    *,
    output: str | None = None,
    judge: str | None = None,
    judge_model: str | None = None,
    judge_key: str | None = None,
    votes: int = 3,
    temperature: float = 0.7,
    concurrency: int = 8,
    normalizer: Literal["english", "basic", "none"] = "english",
    unit: Literal["word", "character"] = "word",
    device: str | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Score predicted SAP records: transcripts, closed attributes and events, and with a judge the free texts.

    Args:
        predictions: records with id and prediction, as text or as an object.
        references: labelled records with the same ids; one without a prediction counts as saying nothing.
        output: write all scores, and one line for each record, as JSON.
        judge: model that compares free texts: the URL of an endpoint, or hf: and a folder or Hub id.
        judge_model: its name at the endpoint; the only one there is, if not given.
        judge_key: environment variable with the key for the endpoint.
        votes: so often the judge is asked about each pair; an odd number.
        temperature: of the judge; above 0, or else all votes are one.
        concurrency: questions asked at a time.
        normalizer: of transcripts before words are compared; basic for languages other than English.
        unit: character for languages written without spaces.
        device: torch device of a local judge; the first GPU when there is one.
        overwrite: replace an output that exists.
        json: print the scores as JSON.
    """
    from audiollm.benchmarks.judge.asking import JudgeSettings
    from audiollm.benchmarks.sap import report as sap_report
    from audiollm.data.chat.opening import open_chat_model
    from audiollm.environment import find_device

    if output is not None:
        refuse_existing(output, overwrite)
    settings = JudgeSettings(votes=votes, temperature=temperature, concurrency=concurrency)
    model = judge and open_chat_model(judge, judge_model, key_variable=judge_key, device=find_device(device))
    result = sap_report.score_sap(
        predictions,
        references,
        judge=model or None,
        judge_settings=settings,
        normalizer=normalizer,
        unit=unit,
        progress=True,
    )
    if output is not None:
        sap_report.write_scores(result, output)
    summary = {name: round(value, 4) for name, value in result["scores"].items()} | {
        name: result[name] for name in ("missing", "repaired")
    }
    if json:
        write_line(jsonlib.dumps(summary | {"judge": result.get("judge")}))
        return
    shown = {name: f"{value:g}" for name, value in summary.items()}
    show_facts(shown, title=f"{predictions} against {references}")
