"""Multiple-choice benchmarks of audio understanding (MMAU, MMAR, MMSU): check the data, ask a model, score replies."""

from __future__ import annotations

import inspect
import json as jsonlib
from collections.abc import Callable
from typing import Literal

from .console import show, write_line


def question_actions(benchmark: str) -> dict[str, Callable[..., None]]:
    """The actions of a benchmark.

    Args:
        benchmark: its name, see ``audiollm.benchmarks.questions.base``.
    """

    def check(
        *,
        data: str,
        output: str | None = None,
        limit: int | None = None,
        require_known_data: bool = False,
        json: bool = False,
    ) -> None:
        """Check the data: their version, the questions, and that every recording can be decoded.

        Args:
            data: the published file of questions, the folder it is in, or the id of a data set on the Hub.
            output: file for the report as JSON.
            limit: look at the first so many recordings only.
            require_known_data: refuse questions that are not a known version.
            json: print the report as JSON.
        """
        from audiollm.benchmarks.questions.checking import check_questions, require_usable
        from audiollm.benchmarks.questions.data import load_questions
        from audiollm.benchmarks.questions.registry import benchmark_named
        from audiollm.benchmarks.questions.report import write_facts

        questions = benchmark_named(benchmark)
        loaded = load_questions(questions, data)
        report = check_questions(questions, loaded, limit=limit)
        if output is not None:
            write_facts(report, output)
        if json:
            write_line(jsonlib.dumps(report))
        else:
            show(report, as_json=False, title=f"{benchmark}: {data}")
        require_usable(questions, loaded, report, require_known_data=require_known_data)

    def make(
        *,
        data: str,
        output: str,
        split: str | None = None,
        per_clip: int | None = None,
        seed: int = 0,
    ) -> None:
        """Make a set of questions of your own in this benchmark's layout, from clips with SAP records.

        Args:
            data: clips with SAP records, as audiollm label writes them.
            output: folder; gets the file of questions and the recordings.
            split: clips of this split only.
            per_clip: most questions about a clip; all that can be asked, if not given.
            seed: of wordings, options and their order.
        """
        from audiollm.benchmarks.questions.custom_sets import write_question_set
        from audiollm.benchmarks.questions.registry import benchmark_named

        questions = benchmark_named(benchmark)
        write_line(str(write_question_set(questions, data, output, split=split, per_clip=per_clip, seed=seed)))

    def export(*, predictions: str, data: str, output: str, prediction_key: str | None = None) -> None:
        """Write replies with the questions' own fields, as the published scorer and upload pages take them.

        Args:
            predictions: a log that predict has written, or any file of predictions.
            data: the questions.
            output: file, .json or .jsonl.
            prediction_key: field of the replies, if it is not the official one.
        """
        from audiollm.benchmarks.questions.exporting import export_replies
        from audiollm.benchmarks.questions.registry import benchmark_named

        questions = benchmark_named(benchmark)
        count, replied = export_replies(questions, predictions, data, output, prediction_key=prediction_key)
        write_line(f"{output}: {count:,} questions, {replied:,} with a reply in {questions.prediction_key!r}")

    def score(
        *,
        predictions: str,
        data: str | None = None,
        mode: Literal["official", "strict", "extract"] = "official",
        output: str | None = None,
        prediction_key: str | None = None,
        require_known_data: bool = False,
        seed: int = 0,
        json: bool = False,
    ) -> None:
        """Score a file of predictions: ours, or anybody's with the official fields.

        Args:
            predictions: JSON list or JSON lines, one object a question; or a log that predict has written.
            data: the questions; needed where the predictions do not hold them.
            mode: official is the published rule with its omissions; strict counts what is missing or unreadable as
                wrong; extract takes the answer out of the reply first.
            output: file for the result as JSON.
            prediction_key: field of the replies, if it is not the official one.
            require_known_data: refuse questions that are not a known version.
            seed: of the bootstrap interval.
            json: print the result without its items as JSON.
        """
        from audiollm.benchmarks.questions.grading.scoring import score_file
        from audiollm.benchmarks.questions.registry import benchmark_named
        from audiollm.benchmarks.questions.report import show_result

        result = score_file(
            benchmark_named(benchmark),
            predictions,
            data=data,
            mode=mode,
            prediction_key=prediction_key,
            require_known_data=require_known_data,
            seed=seed,
        )
        show_result(result, output, as_json=json)

    return {
        "run": _asking_action(benchmark, _RUN, scores=True),
        "make": make,
        "check": check,
        "predict": _asking_action(benchmark, _PREDICT, scores=False),
        "export": export,
        "score": score,
    }


_RUN = """Check the data, ask a model every question, and score its replies in every mode.

The output gets check.json, predictions.jsonl and a result for each mode. Run again to go on where a run stopped. With
accelerate launch, processes share the questions.
"""
_PREDICT = "Check the data, ask a model every question and keep its replies; run again to go on where a run stopped."


def _asking_action(benchmark: str, summary: str, *, scores: bool) -> Callable[..., None]:
    """The action that asks a model, with or without scoring its replies."""

    def ask(
        *,
        data: str,
        model: str | None = None,
        output: str | None = None,
        limit: int | None = None,
        shuffle_options: int | None = None,
        prompt: str | None = None,
        batch_size: int = 8,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        device: str | None = None,
        dtype: str = "auto",
        endpoint_model: str | None = None,
        endpoint_key: str | None = None,
        concurrency: int = 8,
        require_known_data: bool = False,
        keep_going: bool = False,
    ) -> None:
        """
        Args:
            data: the published file of questions, the folder it is in, or the id of a data set on the Hub.
            model: folder or Hub id of an Audio-LLM, of ours or of transformers, or the URL of an OpenAI-compatible
                endpoint; the embedded model if not given.
            output: folder; results/ and the name of the benchmark, if not given.
            limit: ask only so many questions, the first ones.
            shuffle_options: seed of the order of options; as in the data, if not given.
            prompt: id of a prompt, or a JSON file of one; the benchmark's own, if not given.
            batch_size: questions that a model on this machine answers at a time.
            max_new_tokens: the longest reply.
            temperature: 0 for the likeliest reply.
            device: torch device of a model on this machine; the first GPU when there is one.
            dtype: of its weights, float32, bfloat16 or float16; as stored, if auto.
            endpoint_model: name of the model at the endpoint; the only one there is, if not given.
            endpoint_key: environment variable with the key for the endpoint.
            concurrency: requests to the endpoint at a time.
            require_known_data: refuse questions that are not a known version.
            keep_going: ask what can be asked although recordings cannot be used; these count as not answered.
        """
        from audiollm.benchmarks.models.base import AnswerSettings
        from audiollm.benchmarks.questions.asking.predicting import PredictingSettings
        from audiollm.benchmarks.questions.run import QuestionRun, run_questions

        settings = QuestionRun(
            output=output or f"results/{benchmark}",
            predicting=PredictingSettings(
                prompt=prompt, shuffle_options=shuffle_options, limit=limit, batch_size=batch_size
            ),
            answering=AnswerSettings(max_new_tokens=max_new_tokens, temperature=temperature),
            device=device,
            dtype=dtype,
            endpoint_model=endpoint_model,
            endpoint_key=endpoint_key,
            concurrency=concurrency,
            require_known_data=require_known_data,
            keep_going=keep_going,
        )
        run_questions(benchmark, data, model, settings, scores=scores)

    ask.__doc__ = f"{summary}\n\n{inspect.cleandoc(ask.__doc__ or '')}"
    return ask
