"""SEED-TTS-eval: speaks the texts of a list in the voices of its prompts, and judges what came of it.

Every recording, transcript and verdict is kept; a run that was stopped goes on. Examples::

    python benchmarks/seed_tts.py --meta en/meta.lst --language en --model mini --output-dir results/seed-tts-en
    python benchmarks/seed_tts.py --meta zh/meta.lst --language zh --wavs their_wavs --output-dir results/theirs
    accelerate launch benchmarks/seed_tts.py --meta en/meta.lst --language en --seeds 0,1,2 --output-dir results/three
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from audiollm.benchmarks.harness.actions import Actions, run_action
from audiollm.benchmarks.harness.figures import print_json, recorded_config, write_figures
from audiollm.benchmarks.harness.identity import RESULT_NAME, VERDICTS_NAME, check_identity, file_identity
from audiollm.benchmarks.harness.options import refuse_idle
from audiollm.benchmarks.harness.processes import LaunchedProcesses, launched_processes
from audiollm.benchmarks.metrics.seed_tts_wer.pairs import read_pairs, score_pairs
from audiollm.benchmarks.metrics.seed_tts_wer.text import Language
from audiollm.benchmarks.metrics.speaker_similarity.speaker_similarity import printed_lines
from audiollm.benchmarks.speech.judges.judging import NONE, SpeechJudges, SpokenRecording, verdict_figures
from audiollm.benchmarks.speech.judges.recognizers import recognizer_for
from audiollm.benchmarks.speech.seed_tts_meta import SpeechItem, SpeechList, missing_recordings, read_meta
from audiollm.benchmarks.speech.seed_tts_voices import score_vector_file
from audiollm.benchmarks.speech.synthesis import (
    AudioLLMSpeech,
    SpeechSystem,
    UniAudioSpeech,
    VoiceMode,
    synthesise,
)
from audiollm.benchmarks.speech.table import show_speech_table, without_recordings
from audiollm.benchmarks.speech.words import word_figures
from audiollm.data.audio.channels import Mono
from audiollm.data.files.lock import locked_folder
from audiollm.environment import find_device
from audiollm.facts import show_facts
from audiollm.modeling import AudioLLM
from audiollm.uniaudio import UniAudio, is_uniaudio

TRUTH = "ground truth"


@dataclass(frozen=True, kw_only=True)
class SeedTTSConfig:
    """One model, or a folder of recordings, on one list."""

    meta: str
    """The list, such as en/meta.lst of the data set; paths in it are relative to it."""
    language: Language
    """Of the texts."""
    output_dir: str
    """Folder for recordings, transcripts and result.json."""
    model: str = "mini"
    """Folder or Hub id of an Audio-LLM or multi-stream LM with a waveform decoder; the embedded one if not given."""
    wavs: str | None = None
    """Judge the recordings <id>.wav of this folder; no model is used."""
    seeds: tuple[int, ...] = (0,)
    """One run for each, such as 0,1,2; mean and spread are reported."""
    limit: int | None = None
    """Only the first so many lines."""
    voice: VoiceMode = "auto"
    """How the decoder takes over a prompt's voice: prompt, speaker (vector), both, none, or auto (what it can)."""
    speaker_encoder: str = "resemblyzer"
    """Of the decoder's speaker vectors."""
    asr: str | None = None
    """Recognizer: whisper-tiny.en, whisper-base, whisper-large-v3, paraformer-zh, a folder, Hub id, http://…/v1#model,
    or none. A small one of the language if not given."""
    similarity: str = "resemblyzer"
    """Speaker encoder that measures likeness, or none."""
    mos: str = "dnsmos"
    """Predictor of opinion, or none."""
    max_seconds: float | None = None
    """Of one utterance."""
    temperature: float | None = None
    """Of the choice of codes."""
    steps: int | None = None
    """Of the decoder's flow model."""
    mono: Mono | None = None
    """Which channel of the prompts and of the recordings that are judged is heard: first, or the mean of all. If not
    given, judges and speaker encoders hear the mean, and a decoder its prompt's first channel."""
    attempts: int = 2
    """How often an utterance is tried that fails."""
    device: str | None = None
    """Torch device; the first GPU when there is one."""
    json: bool = False
    """Print the result without its utterances as JSON."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)}: give one or more, each once, such as 0,1,2")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit}: use 1 or more")
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts}: use 1 or more")
        if self.wavs is not None:
            spoken = ("model", "seeds", "voice", "speaker_encoder", "max_seconds", "temperature", "steps", "attempts")
            refuse_idle(self, spoken, "with --wavs, since nothing is spoken")
        if self.voice in ("none", "prompt"):
            refuse_idle(self, ["speaker_encoder"], f"with --voice {self.voice}")


@dataclass(frozen=True, kw_only=True)
class TextPairsConfig:
    """Transcripts that are there already."""

    pairs: str
    """JSONL or JSON list of objects with id, hypothesis (what was heard) and reference (what was to be said)."""
    language: Language
    """Of the texts."""
    output: str | None = None
    """File for the result as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    json: bool = False
    """Print the result without its utterances as JSON."""


@dataclass(frozen=True, kw_only=True)
class VoicePairsConfig:
    """Speaker vectors that are there already."""

    pairs: str
    """JSON with pairs (a list, or one under "pairs") of objects with the vectors synthesised and prompt."""
    output: str | None = None
    """File for the result as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    json: bool = False
    """Print the result without its pairs as JSON."""


def measure(config: SeedTTSConfig, system: SpeechSystem | None = None) -> dict[str, Any] | None:
    """Runs the benchmark.

    Args:
        config: what to run.
        system: what speaks, in place of the model of ``config``.

    Returns:
        The result, which is in ``result.json`` too; None in processes that are not the main one.

    Raises:
        ValueError: the list or a setting is wrong, the folder holds another run, or another process is at work on it.
        OSError: recordings of the list are missing, or a model cannot be had.
    """
    processes = launched_processes()
    listed = read_meta(
        config.meta, allow_missing_prompts=config.similarity == NONE and config.voice in ("none", "auto")
    )
    items = listed.items[: config.limit]
    missing = missing_recordings(items)
    if missing:
        raise OSError(f"{len(missing)} recordings of {config.meta} are missing, such as {missing[0]}")
    folder = Path(config.output_dir)
    if not processes.is_main:
        _speak_all(config, system, listed, items, folder, processes)
        return None
    with locked_folder(folder):
        described = _speak_all(config, system, listed, items, folder, processes)
        return _judge_all(config, listed, items, folder, described)


def _speak_all(
    config: SeedTTSConfig,
    system: SpeechSystem | None,
    listed: SpeechList,
    items: Sequence[SpeechItem],
    folder: Path,
    processes: LaunchedProcesses,
) -> dict[str, Any]:
    """Makes the recordings of all seeds, this process its share; returns what made them."""
    if config.wavs is not None:
        return {"wavs": config.wavs}
    system = system or _load_system(config)
    described = system.describe()
    # What is spoken; how it is judged may change from run to run.
    identity = {"benchmark": "seed-tts", "meta_sha256": listed.sha256, "language": config.language, "system": described}
    processes.from_main(lambda: check_identity(folder, identity))
    for seed in config.seeds:
        share = items[processes.rank :: processes.world_size]
        synthesise(
            system, share, folder / f"seed{seed}" / "wavs", seed=seed, attempts=config.attempts, rank=processes.rank
        )
    processes.wait()
    return described


def _load_system(config: SeedTTSConfig) -> SpeechSystem:
    if is_uniaudio(config.model):
        return _load_multi_stream(config)
    model = AudioLLM.from_pretrained(config.model, device=find_device(config.device))
    generation = {"max_seconds": config.max_seconds, "temperature": config.temperature, "steps": config.steps}
    return AudioLLMSpeech(
        model,
        config.model,
        voice=config.voice,
        speaker_encoder=config.speaker_encoder,
        generation=generation,
        mono=config.mono,
    )


def _load_multi_stream(config: SeedTTSConfig) -> SpeechSystem:
    if config.voice not in ("auto", "none"):
        raise ValueError(f"voice={config.voice}: a multi-stream LM takes over no prompt's voice; leave it out")
    return UniAudioSpeech(
        UniAudio.from_pretrained(config.model, device=find_device(config.device)),
        config.model,
        max_seconds=config.max_seconds,
        temperature=config.temperature,
        decoding={"steps": config.steps},
    )


def _judge_all(
    config: SeedTTSConfig,
    listed: SpeechList,
    items: Sequence[SpeechItem],
    folder: Path,
    described: dict[str, Any],
) -> dict[str, Any]:
    device = find_device(config.device)
    judges = SpeechJudges(
        recognizer_for(config.language, config.asr),
        config.similarity,
        config.mos,
        language=config.language,
        device=device,
        mono=config.mono,
    )
    runs = []
    for seed in config.seeds if config.wavs is None else (0,):
        run_folder = folder / f"seed{seed}" if config.wavs is None else folder
        wavs = run_folder / "wavs" if config.wavs is None else Path(config.wavs)
        paths = {item.id: str(wavs / item.file_name) for item in items}
        run = _judge_recordings(judges, items, paths, run_folder, config.language)
        runs.append({"seed": seed, "predictions": file_identity(run_folder / VERDICTS_NAME, folder)} | run)
    truths = {item.id: item.truth for item in items if item.truth is not None}
    truth = None
    if truths:
        spoken = [item for item in items if item.id in truths]
        truth = _judge_recordings(judges, spoken, truths, folder / "ground_truth", config.language)
        truth |= {"predictions": file_identity(folder / "ground_truth" / VERDICTS_NAME, folder)}
    result = {
        "benchmark": "seed-tts",
        "meta": {"file": Path(listed.path).name, "sha256": listed.sha256, "lines": len(listed.items)},
        "language": config.language,
        "limit": config.limit,
        "system": described,
        "judges": judges.names,
        "n_items": len(items),
        "summary": summarise(runs),
        "runs": runs,
        "ground_truth": truth,
        "config": recorded_config(config, device=device),
    }
    write_figures(result, str(folder / RESULT_NAME))
    return result


def _judge_recordings(
    judges: SpeechJudges, items: Sequence[SpeechItem], paths: dict[str, str], folder: Path, language: Language
) -> dict[str, Any]:
    """Figures of one set of recordings; transcripts and verdicts go to the folder.

    A recording that is missing has no verdict. The published scripts leave it out without a word; here it is counted,
    and ``wer_missing_as_wrong`` takes nothing to have been heard of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = [item for item in items if Path(paths[item.id]).is_file()]
    verdicts = judges.judge(
        [SpokenRecording(item.id, paths[item.id], item.prompt) for item in there], folder / VERDICTS_NAME
    )
    figures: dict[str, Any] = {
        "n_items": len(items),
        "missing": sorted({item.id for item in items} - {item.id for item in there}),
        **verdict_figures(verdicts),
    }
    similarity = figures["similarity"]
    if similarity["n"]:
        similarity["printed"] = printed_lines(similarity["mean"], similarity["variance"])
    transcripts = {verdict.id: verdict.hypothesis for verdict in verdicts if verdict.hypothesis is not None}
    # Where nobody listened there are no words to score.
    texts = {item.id: item.text for item in items} if transcripts or not there else {}
    return figures | word_figures(texts, transcripts, language, folder)


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread (sample standard deviation; None of one run) of each figure over the runs."""
    figures = {
        "wer": [run["wer"] for run in runs],
        "wer_capped": [run["wer_capped"] for run in runs],
        "wer_missing_as_wrong": [run["wer_missing_as_wrong"] for run in runs],
        "similarity": [run["similarity"]["mean"] for run in runs],
        "mos": [run["mos"]["mean"] for run in runs],
    }
    summary: dict[str, Any] = {"num_runs": len(runs), "num_missing": sum(len(run["missing"]) for run in runs)}
    summary["num_looped"] = sum(len(run["looped"]) for run in runs)
    for name, values in figures.items():
        there = [value for value in values if value is not None]
        summary[name] = {
            "mean": mean(there) if there else None,
            "spread": stdev(there) if len(there) > 1 else None,
            "values": values,
        }
    return summary


def run(config: SeedTTSConfig) -> None:
    """Speak the texts of a list in the voices of its prompts, and judge what came of it."""
    result = measure(config)
    if result is None:  # another process judges
        return
    truth = result["ground_truth"]
    if config.json:
        runs = [without_recordings(run) for run in result["runs"]]
        print_json(result | {"runs": runs, "ground_truth": truth and without_recordings(truth)})
        return
    rows = {f"seed {run['seed']}" if config.wavs is None else "recordings": run for run in result["runs"]}
    show_speech_table(rows | ({TRUTH: truth} if truth else {}), result["judges"])


def score_texts(config: TextPairsConfig) -> None:
    """Word (Mandarin: character) error rate of transcripts, exactly as seed-tts-eval computes it."""
    result = score_pairs(read_pairs(config.pairs), config.language) | {"predictions": file_identity(config.pairs)}
    write_figures(result, config.output)
    facts = {
        "utterances": result["n_items"],
        "references without words": result["num_empty_references"],
        "published figure": result["averaged"]["printed"],
        "left out of it": len(result["averaged"]["left_out"]),
        "mean of all": result["wer_of_all"],
        "mean of all, none above 100 %": result["wer_capped"],
        "looped": ", ".join(result["looped"]) or 0,
        "errors over words": result["corpus_level"]["wer"],
        "mean without apostrophes": result["apostrophes_removed_too"],
    }
    show_facts(facts, title=f"seed-tts-eval, {config.language}", as_json=config.json)


def score_voices(config: VoicePairsConfig) -> None:
    """Speaker similarity of pairs of speaker vectors, as seed-tts-eval reports it."""
    result = score_vector_file(config.pairs) | {"predictions": file_identity(config.pairs)}
    write_figures(result, config.output)
    facts = {name: value for name, value in result.items() if name not in ("scores", "benchmark", "predictions")}
    show_facts(facts, title="speaker similarity", as_json=config.json)


ACTIONS: Actions = {"run": run, "wer": score_texts, "sim": score_voices}

if __name__ == "__main__":
    run_action(ACTIONS, name="seed_tts")
