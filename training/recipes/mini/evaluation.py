"""Held-out figures of the model `mini`, each beside what one gets without it.

Transcripts stand beside those of a real recognizer, answers beside always giving the commonest answer and guessing, and
spoken sentences beside the original recordings and beside recordings that only went through the codes. What cannot be
measured here is named, with the reason.
"""
# Shapes: T codes, N samples.

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.speech.judges.attributes import AttributeJudge, open_judge
from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.data.audio.reading import load_audio
from audiollm.data.corpora.clips import CorpusError
from audiollm.data.files.json_lines import read_json_lines
from audiollm.data.packages import PackageError
from audiollm.data.sampling import spread
from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.questions import collect_vocabulary
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.recipes.answering import answer

from .conversations import MAX_SPOKEN_SECONDS, answers_of, is_for_lm, request_of, sap_questions, voice_of
from .data import HELD_OUT, held_out_clips
from .held_out import held_out_sentences
from .layout import MiniLayout
from .package import folder_size
from .speaking import ReadSentences, first_sample_seconds, speak_sentences, speaking_figures

# Described in full sentences, so that only the whole of a sentence counts; the parts have questions of their own.
QUESTIONS = ("kind", "sound", "music", "gender", "accent", "describe")
SPOKEN_CLIPS = 60

logger = logging.getLogger(__name__)


def evaluate_mini(
    folder: Path,
    layout: MiniLayout,
    *,
    judge: str = "whisper-tiny.en",
    clips_per_corpus: int | None = None,
    spoken_clips: int = SPOKEN_CLIPS,
    held_out: int = SPOKEN_CLIPS,
    voice_judge: str | None = None,
) -> dict[str, Any]:
    """Measures a model on the test clips of a run.

    Args:
        folder: the Audio-LLM, with its tokenizer and decoder.
        layout: where the test clips are.
        judge: the recognizer, see `audiollm.benchmarks.speech.judges.recognizers`.
        clips_per_corpus: so many test clips of each corpus at most, evenly spread; None: all.
        spoken_clips: how many of the clips' texts are spoken.
        held_out: how many of the sentences of open vocabulary are spoken and transcribed, in every voice.
        voice_judge: who hears the gender of what is spoken, see `audiollm.benchmarks.speech.judges.attributes`; None:
            the run's own tokenizer before its export, if it is there.

    Returns:
        Figures by kind of task, ready for JSON; see the model card. ``not_measured`` says of what there are none, why.
    """
    started = time.perf_counter()
    model = AudioLLM.from_pretrained(folder)
    package: dict[str, Any] = {"bytes": folder_size(folder), "load_seconds": round(time.perf_counter() - started, 2)}
    texts = spread(held_out_sentences(), held_out)
    if model.processor.audio_tokenizer.can_decode:
        # Before the decoder is used otherwise: the first call is to load it.
        package["first_sample_seconds"] = first_sample_seconds(model, texts[0])
    clips = _evenly(
        [clip for clip in read_json_lines(layout.tokenizer_data("test")) if is_for_lm(clip)], clips_per_corpus
    )
    waveforms = [load_audio(clip["audio"], SAMPLE_RATE)[0] for clip in clips]
    encoded = model.processor.audio_tokenizer.encode(waveforms, SAMPLE_RATE)
    codes = [encoded[number][0] for number in range(len(clips))]
    transcriber = Transcriber(judge)
    speech = [number for number, clip in enumerate(clips) if clip["sound_type"] == "speech"]
    figures: dict[str, Any] = {
        "judge": judge,
        "clips": dict(Counter(clip["sound_type"] for clip in clips)),
        "codes": _usage(codes, model.vocabulary.codebook_size),
        "package": package,
        "transcribe": _transcripts(model, clips, codes, waveforms, speech, transcriber),
        "questions": _questions(model, clips, codes, list(read_json_lines(layout.lm_data("train")))),
    }
    short = [number for number in speech if clips[number]["duration_seconds"] <= MAX_SPOKEN_SECONDS]
    chosen = short[:: max(1, len(short) // spoken_clips)][:spoken_clips]
    if model.processor.audio_tokenizer.can_decode and chosen:
        figures["speech"] = _speech(model, clips, codes, waveforms, chosen, transcriber)
    held_out_figures = _held_out_figures(model, layout, transcriber, texts, voice_judge)
    figures["transcribe"] |= held_out_figures.pop("transcribe", {})
    figures |= held_out_figures
    figures["seconds"] = round(time.perf_counter() - started, 1)
    return figures


# ------------------------------------------------------------------- listening


def _transcripts(
    model: AudioLLM,
    clips: Sequence[Mapping[str, Any]],
    codes: Sequence[Tensor],
    waveforms: Sequence[Tensor],
    chosen: Sequence[int],
    transcriber: Transcriber,
) -> dict[str, Any]:
    """Word error rates by corpus, of the model and of the recognizer."""
    transcripts = answer(
        model, [codes[number] for number in chosen], [request_of("transcribe")] * len(chosen), "transcribe"
    )
    reference = transcriber.transcribe([waveforms[number] for number in chosen], SAMPLE_RATE)
    by_corpus: defaultdict[str, list[int]] = defaultdict(list)
    for position, number in enumerate(chosen):
        by_corpus[clips[number]["id"].partition("/")[0]].append(position)
    return {
        corpus: {
            "clips": len(positions),
            "wer": word_error_rate([transcripts[p] for p in positions], [clips[chosen[p]]["text"] for p in positions]),
            "judge_wer": word_error_rate(
                [reference[p] for p in positions], [clips[chosen[p]]["text"] for p in positions]
            ),
            "examples": [{"text": clips[chosen[p]]["text"], "heard": transcripts[p]} for p in positions[:5]],
        }
        for corpus, positions in by_corpus.items()
    }


def _questions(
    model: AudioLLM,
    clips: Sequence[Mapping[str, Any]],
    codes: Sequence[Tensor],
    training: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Accuracies by task, beside those of the commonest training answer and of guessing among them."""
    scores = {}
    for task in QUESTIONS:
        chosen = [number for number, clip in enumerate(clips) if task in answers_of(clip)]
        known = Counter(record["messages"][-1]["content"] for record in training if record["task"] == task)
        if not chosen or not known:
            continue
        truths = [answers_of(clips[number])[task] for number in chosen]
        given = answer(model, [codes[number] for number in chosen], [request_of(task)] * len(chosen), task)
        commonest = known.most_common(1)[0][0]
        scores[task] = {
            "clips": len(chosen),
            "accuracy": _accuracy(given, truths),
            "balanced_accuracy": _balanced_accuracy(given, truths),
            "majority": _accuracy([commonest] * len(truths), truths),
            "guessing": 1 / len(known),
        }
    return scores | {"choice": _choices(model, clips, codes)}


def _choices(model: AudioLLM, clips: Sequence[Mapping[str, Any]], codes: Sequence[Tensor]) -> dict[str, Any]:
    """Accuracy over questions that name their possible answers."""
    vocabulary = collect_vocabulary(parse_sap(clip["sap"]) for clip in clips)
    asked = [
        (number, question)
        for number, clip in enumerate(clips)
        for question in sap_questions(clip, vocabulary, count=1, kinds=("multiple_choice", "true_false"))
    ]
    truths = [question.answer for _, question in asked]
    given = answer(model, [codes[number] for number, _ in asked], [question.text for _, question in asked], "question")
    return {
        "clips": len(asked),
        "accuracy": _accuracy(given, truths),
        "balanced_accuracy": None,
        "majority": None,
        "guessing": sum(1 / len(question.choices or ("yes", "no")) for _, question in asked) / len(asked),
    }


# -------------------------------------------------------------------- speaking


def _speech(
    model: AudioLLM,
    clips: Sequence[Mapping[str, Any]],
    codes: Sequence[Tensor],
    waveforms: Sequence[Tensor],
    chosen: Sequence[int],
    transcriber: Transcriber,
) -> dict[str, Any]:
    """How well a recognizer understands the originals, the same through codes, and what the model says itself."""
    texts = [clips[number]["text"] for number in chosen]
    audio_tokenizer = model.processor.audio_tokenizer
    decoded = [audio_tokenizer.decode(codes[number][None, None])[0] for number in chosen]
    spoken = speak_sentences(model, texts, [voice_of(clips[number]) for number in chosen])
    transcripts = {
        "original": transcriber.transcribe([waveforms[number] for number in chosen], SAMPLE_RATE),
        "reconstructed": transcriber.transcribe(decoded, audio_tokenizer.output_sample_rate),
        "spoken": transcriber.transcribe([result.waveform for result in spoken], audio_tokenizer.output_sample_rate),
    }
    return {
        "clips": len(chosen),
        "wer": {name: word_error_rate(found, texts) for name, found in transcripts.items()},
        "ended_by_itself": sum(result.finish_reason == "stop" for result in spoken) / len(spoken),
        "examples": [
            {"text": text, "heard": found} for text, found in zip(texts[:8], transcripts["spoken"][:8], strict=True)
        ],
    }


# ------------------------------------------------- sentences of open vocabulary


def _held_out_figures(
    model: AudioLLM,
    layout: MiniLayout,
    transcriber: Transcriber,
    texts: Sequence[str],
    voice_judge: str | None,
) -> dict[str, Any]:
    """Transcripts of held-out sentences and speech; and what was not measured."""
    clips = _read_by_synthesizer(layout, texts)
    waveforms: list[Tensor] = []
    codes: list[Tensor] = []
    found: dict[str, Any] = {"not_measured": {}}
    if isinstance(clips, str):
        found["not_measured"][f"transcripts of {HELD_OUT}"] = clips
    else:
        waveforms = [load_audio(clip["audio"], SAMPLE_RATE)[0] for clip in clips]
        encoded = model.processor.audio_tokenizer.encode(waveforms, SAMPLE_RATE)
        codes = [encoded[number][0] for number in range(len(clips))]
        found["transcribe"] = _transcripts(model, clips, codes, waveforms, range(len(clips)), transcriber)
    if not model.processor.audio_tokenizer.can_decode:
        found["not_measured"]["speech"] = "the audio tokenizer has no decoder"
        return found
    read = clips if isinstance(clips, str) else _by_voice(clips, waveforms, codes)
    speaking = speaking_figures(model, texts, transcriber, read, _voice_judge(layout, voice_judge))
    found["not_measured"] |= speaking.pop("not_measured")
    return found | {"speaking": speaking}


def _read_by_synthesizer(layout: MiniLayout, texts: Sequence[str]) -> list[dict[str, Any]] | str:
    """Recordings of the texts, voice by voice and each in the texts' order; or why there are none."""
    try:
        clips = [clip for clip in held_out_clips(layout) if clip["text"] in texts]
    except (PackageError, CorpusError) as error:
        return f"the sentences cannot be read here: {error}"
    return sorted(clips, key=lambda clip: (clip["speaker"], texts.index(clip["text"])))


def _by_voice(
    clips: Sequence[Mapping[str, Any]], waveforms: Sequence[Tensor], codes: Sequence[Tensor]
) -> ReadSentences:
    read = ReadSentences(defaultdict(list), defaultdict(list))
    for clip, waveform, row in zip(clips, waveforms, codes, strict=True):
        voice = clip["speaker"].rpartition("/")[2]
        read.waveforms[voice].append(waveform)
        read.codes[voice].append(row)
    return read


def _voice_judge(layout: MiniLayout, source: str | None) -> AttributeJudge | str:
    """The judge, or why there is none."""
    own = layout.judge / MODEL_FOLDER
    if source is None and not own.is_dir():
        return f"{own} is not there, whose text decoder hears voices; name another judge with --voice_judge"
    return open_judge(source or str(own), "cpu")


# --------------------------------------------------------------------- numbers


def word_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float | None:
    """Over all words, after the English normalization."""
    rate: float | None = load_metric("wer").compute(predictions=list(predictions), references=list(references))["wer"]
    return rate


def _accuracy(given: Sequence[str], truths: Sequence[str]) -> float:
    return sum(map(_same, given, truths)) / len(truths)


def _balanced_accuracy(given: Sequence[str], truths: Sequence[str]) -> float:
    """Mean of the accuracies of each true answer, so that common ones do not hide rare ones."""
    by_truth: defaultdict[str, list[bool]] = defaultdict(list)
    for answered, truth in zip(given, truths, strict=True):
        by_truth[truth].append(_same(answered, truth))
    return sum(sum(right) / len(right) for right in by_truth.values()) / len(by_truth)


def _same(given: str, truth: str) -> bool:
    return given.strip().rstrip(".").casefold() == truth.strip().rstrip(".").casefold()


def _usage(codes: Sequence[Tensor], codebook_size: int) -> dict[str, Any]:
    counts = Counter(code for row in codes for code in row.tolist())
    return {"total": sum(counts.values()), "different": len(counts), "codebook_size": codebook_size}


def _evenly(clips: list[dict[str, Any]], per_corpus: int | None) -> list[dict[str, Any]]:
    """At most so many clips of each corpus, at even distances."""
    if per_corpus is None:
        return clips
    chosen: list[dict[str, Any]] = []
    for name in dict.fromkeys(clip["id"].partition("/")[0] for clip in clips):
        chosen += spread([clip for clip in clips if clip["id"].startswith(f"{name}/")], per_corpus)
    return chosen
