"""What a run tells the card of its model: data, figures, settings, and which weights they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audiollm.tokenizer.checkpoints.card import EVALUATION_DATA, TRAINING_DATA, DataSource, Training

from .best import BestEvaluation
from .figures import scores

# What data are called in records of runs → in the card.
_DATA_FACTS = {
    "num_records": "records", "num_clips": "clips", "hours": "hours", "num_skipped": "left out",
    "records": "fingerprint", "prepared": "fingerprint", "encoded": "fingerprint of the tokens",
}  # fmt: skip
_VERSIONS = ("audiollm", "torch", "transformers", "peft")


def training_of(
    documents: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    *,
    step: int,
    best: BestEvaluation | None,
    evaluation_data: Mapping[str, Any],
) -> Training:
    """Collects the facts of a run.

    Args:
        documents: its ``config.json`` and ``run.json``.
        lines: of its ``metrics.jsonl``.
        step: the update whose weights the model has.
        best: the best evaluation so far.
        evaluation_data: sizes and fingerprint of the held-out records; empty without any.
    """
    config, record = documents["config.json"], documents["run.json"]
    data = [DataSource(TRAINING_DATA, config["train_data"], _data_facts(record["data"]))]
    if config["eval_data"] is not None:
        data.append(DataSource(EVALUATION_DATA, config["eval_data"], _data_facts(evaluation_data)))
    evaluation = next((line for line in lines if line["event"] == "eval" and line["step"] == step), None)
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in _VERSIONS if record["versions"][name])
    return Training(
        data=data,
        weights=told_weights(step, record["num_updates"], best),
        scores={} if evaluation is None else scores(evaluation),
        settings=config,
        facts={
            "updates": record["num_updates"],
            "weights in all": f"{record['num_parameters']:,}",
            "weights trained": f"{record['num_trainable_parameters']:,}",
            "processes": f"{record['launch']['num_processes']} ({record['launch']['mode']})",
            "versions": versions,
        },
    )


def told_weights(step: int, total_steps: int, best: BestEvaluation | None) -> str:
    """Which weights a model has, such as ``those after update 30 of 40, of the best evaluation (loss 0.48)``."""
    what = [] if step < total_steps else ["the last"]
    if best is not None and best.step == step:
        what.append(f"of the best evaluation ({best.figure})")
    return ", ".join([f"those after update {step} of {total_steps}", *what])


def _data_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {told: facts[name] for name, told in _DATA_FACTS.items() if name in facts}
