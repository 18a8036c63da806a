"""Benchmarks of spoken audio and of audio tokenizers: what ``audiollm bench`` calls for them."""

from __future__ import annotations

from typing import Any, Literal

from audiollm.environment import find_device

from .console import show


def score_seed_tts_pairs(
    *, pairs: str, language: Literal["en", "zh"], output: str | None = None, json: bool = False
) -> None:
    """Word (Mandarin: character) error rate of transcripts, exactly as seed-tts-eval computes it.

    Args:
        pairs: JSONL or JSON list of objects with id, hypothesis (what was heard) and reference (what was to be said).
        language: of the texts.
        output: file for the result as JSON.
        json: print the result without its utterances as JSON.
    """
    from audiollm.benchmarks.harness.figures import write_figures
    from audiollm.benchmarks.harness.identity import file_identity
    from audiollm.benchmarks.metrics.seed_tts_wer.pairs import read_pairs, score_pairs

    result = score_pairs(read_pairs(pairs), language) | {"predictions": file_identity(pairs)}
    write_figures(result, output)
    shown = {
        "utterances": result["n_items"],
        "references without words": result["num_empty_references"],
        "published figure": result["averaged"]["printed"],
        "left out of it": len(result["averaged"]["left_out"]),
        "mean of all": result["wer_of_all"],
        "errors over words": result["corpus_level"]["wer"],
        "mean without apostrophes": result["apostrophes_removed_too"],
    }
    _show_rates(shown, as_json=json, title=f"seed-tts-eval, {language}")


def score_seed_tts_voices(*, pairs: str, output: str | None = None, json: bool = False) -> None:
    """Speaker similarity of pairs of speaker vectors, as seed-tts-eval reports it.

    Args:
        pairs: JSON with pairs (a list, or one under "pairs") of objects with the vectors synthesised and prompt.
        output: file for the result as JSON.
        json: print the result without its pairs as JSON.
    """
    from audiollm.benchmarks.harness.figures import write_figures
    from audiollm.benchmarks.harness.identity import file_identity
    from audiollm.benchmarks.speech.seed_tts_voices import score_vector_file

    result = score_vector_file(pairs) | {"predictions": file_identity(pairs)}
    write_figures(result, output)
    shown = {name: value for name, value in result.items() if name not in ("scores", "benchmark", "predictions")}
    _show_rates(shown, as_json=json, title="speaker similarity")


def cluster(
    *,
    codes: str,
    output: str | None = None,
    codebook_size: int | None = None,
    label_key: str = "label",
    scale: Literal["l1", "counts", "l2"] = "l1",
    distance: Literal["euclidean", "cosine"] = "euclidean",
    num_clusters: int | None = None,
    num_restarts: int = 10,
    num_seeds: int = 10,
    json: bool = False,
) -> None:
    """How well histograms of codes tell classes apart: silhouette, purity and mutual information.

    Args:
        codes: JSONL of clips with codes (or tokens) and label; or JSON with lists tokens and labels.
        output: file for the result as JSON.
        codebook_size: how many codes there are; as the file says, or up to its largest code, if not given.
        label_key: key of the class in JSONL.
        scale: of the histograms: shares, counts, or length one.
        distance: of the silhouette.
        num_clusters: of k-means; the number of classes if not given.
        num_restarts: starts of k-means, of which the tightest counts.
        num_seeds: runs of k-means, to show the spread.
        json: print the result as JSON.
    """
    from audiollm.benchmarks.codes.files import cluster_file
    from audiollm.benchmarks.harness.figures import write_figures
    from audiollm.benchmarks.harness.identity import file_identity

    result = cluster_file(
        codes,
        codebook_size=codebook_size,
        label_key=label_key,
        scale=scale,
        distance=distance,
        num_clusters=num_clusters,
        num_restarts=num_restarts,
        num_seeds=num_seeds,
    )
    result["predictions"] = file_identity(codes)
    write_figures(result, output)
    names = ("n_clips", "n_classes", "silhouette", "purity", "purity_range", "nmi", "problem")
    for case in result.get("cases", [result]):
        shown = {name: case[name] for name in names if case.get(name) is not None}
        _show_rates(shown, as_json=json, title=case["case"])


def run_seed_tts(
    *,
    meta: str,
    language: Literal["en", "zh"],
    output: str,
    model: str = "mini",
    wavs: str | None = None,
    seeds: str = "0",
    limit: int | None = None,
    voice: Literal["auto", "prompt", "speaker", "both", "none"] = "auto",
    speaker_encoder: str = "resemblyzer",
    asr: str | None = None,
    similarity: str = "resemblyzer",
    mos: str = "dnsmos",
    max_seconds: float | None = None,
    temperature: float | None = None,
    steps: int | None = None,
    attempts: int = 2,
    device: str | None = None,
    json: bool = False,
) -> None:
    """Speak the texts of a list in the voices of its prompts, and judge what came of it.

    Args:
        meta: the list, such as en/meta.lst; paths in it are relative to it.
        language: of the texts.
        output: folder for recordings, transcripts and result.json; a run that was stopped goes on.
        model: Audio-LLM folder or Hub id, with a waveform decoder; the embedded one if not given.
        wavs: judge the recordings <id>.wav of this folder; no model is used.
        seeds: one run for each, such as 0,1,2; mean and spread are reported.
        limit: only the first so many lines.
        voice: how the decoder takes over a prompt's voice; auto is what it can.
        speaker_encoder: of the decoder's speaker vectors.
        asr: whisper-tiny.en, whisper-base, whisper-large-v3, paraformer-zh, a folder, Hub id, http://…/v1#model, or
            none; a small one of the language if not given.
        similarity: speaker encoder that measures likeness, or none.
        mos: predictor of opinion, or none.
        max_seconds: of one utterance.
        temperature: of the choice of codes.
        steps: of the decoder's flow model.
        attempts: how often an utterance is tried that fails.
        device: torch device; the first GPU when there is one.
        json: print the result without its utterances as JSON.
    """
    options: dict[str, Any] = dict(locals()) | {"device": find_device(device)}
    del options["json"]
    from audiollm.benchmarks import seed_tts

    result = seed_tts.measure(seed_tts.SeedTTSConfig(**options))
    if result is not None:
        seed_tts.show(result, as_json=json)


def run_reconstruction(
    *,
    data: str,
    output: str,
    tokenizers: str = "mini",
    split: str | None = None,
    limit: int | None = None,
    language: str = "en",
    metrics: str = "stoi,mel_distance",
    voice: Literal["auto", "speaker", "none"] = "auto",
    speaker_encoder: str = "resemblyzer",
    steps: int = 10,
    seed: int = 42,
    asr: str | None = None,
    similarity: str = "resemblyzer",
    mos: str = "dnsmos",
    device: str | None = None,
    json: bool = False,
) -> None:
    """What recordings keep when they go through the codes of audio tokenizers, beside the recordings themselves.

    Args:
        data: records with audio and text (JSONL, parquet, …).
        output: folder for recordings, transcripts and result.json; a run that was stopped goes on.
        tokenizers: folders, Hub ids or mini, with commas between, each as name=folder if it is to have another name.
        split: only records whose split is this.
        limit: only the first so many.
        language: of the speech.
        metrics: distances to the original, with commas between: stoi, pesq, mel_distance, mcd.
        voice: whether a speaker encoder describes the original for the decoder; auto where its vectors fit.
        speaker_encoder: which one.
        steps: of the decoder's flow model.
        seed: of the decoder's noise.
        asr: recognizer, as for seed-tts.
        similarity: speaker encoder that measures likeness, or none.
        mos: predictor of opinion, or none.
        device: torch device; the first GPU when there is one.
        json: print the result without single recordings as JSON.
    """
    options: dict[str, Any] = dict(locals()) | {"device": find_device(device)}
    del options["json"]
    from audiollm.benchmarks import reconstruction

    reconstruction.show(reconstruction.measure(reconstruction.ReconstructionConfig(**options)), as_json=json)


def run_attribute_control(
    *,
    output: str,
    model: str = "mini",
    judge: str | None = None,
    attributes: str = "gender,age,emotion,pitch,speed",
    texts: str | None = None,
    seed: int = 0,
    max_seconds: float | None = None,
    device: str | None = None,
    json: bool = False,
) -> None:
    """Whether a model speaks with the gender, age, emotion, pitch and speed that it is asked for.

    Args:
        output: folder for recordings, the judge's words and result.json; a run that was stopped goes on.
        model: Audio-LLM folder or Hub id, with a waveform decoder; the embedded one if not given.
        judge: who hears gender, age and emotion: a training checkpoint of an audio tokenizer with its SAP decoder, or
            http://…/v1#model or hf:folder for a chat model that hears. Without one, only pitch and speed are measured.
        attributes: which, with commas between.
        texts: file with a text on each line; a few neutral sentences if not given.
        seed: of what is drawn.
        max_seconds: of one utterance.
        device: torch device; the first GPU when there is one.
        json: print the result without single recordings as JSON.
    """
    options: dict[str, Any] = dict(locals()) | {"device": find_device(device)}
    del options["json"]
    from audiollm.benchmarks import attribute_control

    config = attribute_control.AttributeControlConfig(**options)
    attribute_control.show(attribute_control.measure(config), as_json=json)


def run_stability(
    *,
    data: str,
    tokenizer: str = "mini",
    split: str | None = None,
    max_clips: int | None = 200,
    conditions: str | None = None,
    seed: int = 0,
    device: str | None = None,
    output: str | None = None,
    json: bool = False,
) -> None:
    """Share of codes that change under noise, codecs, shifts, cuts into pieces, and bfloat16.

    Args:
        data: records with audio (JSONL, parquet, …).
        tokenizer: audio tokenizer folder or Hub id; the embedded one if not given.
        split: only records whose split is this.
        max_clips: use so many clips, evenly spread over the records.
        conditions: what to do to the clips, with commas between, such as white:20,shift:0.5,mp3; a wide choice if not
            given.
        seed: for noise and rooms.
        device: torch device; the first GPU when there is one.
        output: file for the figures as JSON.
        json: print the figures as JSON.
    """
    options: dict[str, Any] = dict(locals()) | {"device": find_device(device)}
    from audiollm.benchmarks import stability
    from audiollm.mini import tokenizer_or_mini

    chosen = stability.DEFAULT_CONDITIONS if conditions is None else tuple(conditions.split(","))
    options |= {"conditions": chosen, "tokenizer": tokenizer_or_mini(tokenizer)}
    config = stability.StabilityConfig(**options)
    stability.show(stability.measure(config), config)


def run_probing(
    *,
    data: str,
    tokenizer: str = "mini",
    label_key: str = "label",
    sound_type: str | None = None,
    esc10: bool = False,
    min_clips_per_class: int = 2,
    device: str | None = None,
    output: str | None = None,
    json: bool = False,
) -> None:
    """What simple readers tell from a tokenizer's codes, entries and features: linear, logistic and nearest neighbours.

    Args:
        data: records with audio, a class and split (JSONL, parquet, …), or a folder of ESC-50.
        tokenizer: audio tokenizer folder or Hub id; the embedded one if not given.
        label_key: key of the class in the records.
        sound_type: use clips of this sound type only, such as sound.
        esc10: of ESC-50, only the ten classes of ESC-10.
        min_clips_per_class: leave out smaller classes.
        device: torch device; the first GPU when there is one.
        output: file for the figures as JSON.
        json: print the figures as JSON.
    """
    options: dict[str, Any] = dict(locals()) | {"device": find_device(device)}
    from audiollm.benchmarks import sound_classes
    from audiollm.benchmarks.harness.figures import show_figures
    from audiollm.mini import tokenizer_or_mini

    config = sound_classes.SoundClassesConfig(**options | {"tokenizer": tokenizer_or_mini(tokenizer)})
    show_figures(sound_classes.measure(config), output, as_json=json)


def _show_rates(facts: dict[str, object], *, as_json: bool, title: str) -> None:
    """As ``show``; rates keep the digits that tell them apart."""
    if not as_json:
        facts = {name: f"{value:.5f}" if isinstance(value, float) else value for name, value in facts.items()}
    show(facts, as_json=as_json, title=title)
