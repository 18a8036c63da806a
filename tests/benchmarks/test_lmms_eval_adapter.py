"""Our model as lmms-eval calls it; skipped where lmms-eval is not installed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed")

from lmms_eval.api.instance import Instance
from lmms_eval.models import get_model

from audiollm.benchmarks import lmms_eval_adapter
from audiollm.benchmarks.lmms_eval_adapter import MODEL_ID, LmmsEvalModel, register
from audiollm.benchmarks.models.base import AnswerSettings, ChatAnswer, ChatRequest
from audiollm.benchmarks.models.opening import open_audio_chat_model

GREEDY = {"max_new_tokens": 6, "temperature": 0.0, "do_sample": False, "until": []}


@pytest.fixture(scope="module")
def model(audio_llm: Path) -> LmmsEvalModel:
    register()
    return get_model(MODEL_ID).create_from_arg_string(f"model={audio_llm},batch_size=2,device=cpu")


def instance(doc_id: int, context: str, generation: dict[str, Any]) -> Instance:
    arguments = (context, generation, lambda doc: doc["audio"], doc_id, "sounds", "test")
    metadata = {"task": "sounds", "doc_id": doc_id, "repeats": 1}
    return Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=metadata)


def wav(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, samples, 16000, format="WAV", **options)
    return buffer.getvalue()


def test_a_recording_may_come_in_any_form_and_is_answered_as_by_ourselves(
    model: LmmsEvalModel, audio_llm: Path, folders: Path
) -> None:
    path = folders / "clips" / "a.wav"
    samples, sample_rate = sf.read(path, dtype="float32")
    forms: list[Any] = [
        str(path),
        {"path": "elsewhere.wav", "bytes": path.read_bytes()},
        {"array": samples, "sampling_rate": sample_rate},
        {"array": samples.astype(np.float64), "sampling_rate": np.int64(sample_rate)},
    ]
    model.task_dict = {"sounds": {"test": [{"audio": [form]} for form in forms]}}
    replies = model.generate_until([instance(n, "Which? A. x\nB. y", dict(GREEDY)) for n in range(len(forms))])
    ours = open_audio_chat_model(audio_llm, settings=AnswerSettings(max_new_tokens=6), device="cpu")
    (answer,) = ours.answer([ChatRequest(str(path), "Which? A. x\nB. y")])
    assert isinstance(answer, ChatAnswer)
    assert replies == [answer.text] * len(forms)


def test_settings_are_those_of_each_task(model: LmmsEvalModel) -> None:
    clip = wav(np.random.default_rng(0).normal(0, 0.1, 8000))
    model.task_dict = {"sounds": {"test": [{"audio": [{"bytes": clip}]}] * 3}}
    long = dict(GREEDY, max_new_tokens=12)
    replies = model.generate_until([instance(0, "W?", long), instance(1, "W?", dict(GREEDY)), instance(2, "W?", long)])
    assert replies[0] == replies[2]
    assert len(replies[1]) < len(replies[0])
    first = replies[0][2]
    (cut,) = model.generate_until([instance(0, "W?", dict(long, until=[first]))])
    assert cut == replies[0].split(first)[0]
    with pytest.raises(ValueError, match=r"num_beams.*not offered"):
        model.generate_until([instance(0, "W?", dict(GREEDY, num_beams=4))])
    model.task_dict = {"sounds": {"test": [{"audio": []}] * 2}}
    with pytest.raises(ValueError, match="question 1: 0 recordings"):
        model.generate_until([instance(1, "W?", dict(GREEDY))])


def test_several_channels_stay(model: LmmsEvalModel) -> None:
    stereo = np.random.default_rng(1).normal(0, 0.1, (2, 800)).astype(np.float32)
    audio = lmms_eval_adapter._audio({"array": stereo, "sampling_rate": 16000}, "here")
    assert isinstance(audio, bytes)
    samples, _ = sf.read(io.BytesIO(audio), dtype="float32")
    assert np.array_equal(samples.T, stereo)


@pytest.mark.slow
def test_lmms_eval_runs_a_task_with_our_model(audio_llm: Path, tmp_path: Path) -> None:
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    register()
    rows = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(wav(np.random.default_rng(number).normal(0, 0.1, 8000)))
        rows.append({"sound": str(path), "question": f"What is {number}?", "answer": "A"})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task_functions.py").write_text(
        "def sound(doc):\n    return [doc['sound']]\n"
        "def text(doc, lmms_eval_specific_kwargs=None):\n    return doc['question']\n"
        "def score(doc, results):\n    return {'said': float(len(results[0]) > 0)}\n"
    )
    (tmp_path / "task" / "tiny_sounds.yaml").write_text(
        f"""
task: tiny_sounds
dataset_path: json
dataset_kwargs:
  data_files:
    test: {tmp_path}/rows.json
test_split: test
output_type: generate_until
doc_to_visual: !function task_functions.sound
doc_to_text: !function task_functions.text
doc_to_target: answer
process_results: !function task_functions.score
generation_kwargs: {{max_new_tokens: 5, do_sample: false}}
metric_list:
  - {{metric: said, aggregation: mean, higher_is_better: true}}
metadata: {{version: 0}}
"""
    )
    tasks = TaskManager(include_path=str(tmp_path / "task"), model_name=MODEL_ID)
    results = simple_evaluate(
        model=MODEL_ID, model_args=f"model={audio_llm},device=cpu", tasks=["tiny_sounds"], task_manager=tasks,
        batch_size=2, log_samples=True,
    )  # fmt: skip
    assert results["results"]["tiny_sounds"]["said,none"] == 1.0
    assert len(results["samples"]["tiny_sounds"]) == 3
