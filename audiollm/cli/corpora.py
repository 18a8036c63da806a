"""Commands on corpora: other projects' records as ours, codes, speech tasks, and what is trained on."""

from __future__ import annotations

import json as jsonlib
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from audiollm.data.files.replacing import refuse_existing
from audiollm.facts import show_facts

from .console import Precision, load_audio_tokenizer, show_token_table, shown_name, write_line
from .pipes import PIPE
from .recordings import find_recordings

logger = logging.getLogger(__name__)


def convert_data(
    source: str,
    output: str,
    *,
    format: str | None = None,
    task: str | None = None,
    instruction: str | None = None,
    text_key: str | None = None,
    base_dir: str | None = None,
    check_audio: bool = False,
    skip_bad: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Write records of other projects as ours: ShareGPT, ms-swift, Alpaca, NeMo, lhotse, Kaldi, WeNet and others.

    Args:
        source: a file or folder of theirs; the content tells what it is.
        output: our records (.jsonl); conversations, or clips if nothing is asked about recordings.
        format: what the source is, if that is not clear: messages, sharegpt, query-response, prompt-completion, alpaca,
            nemo, lhotse, kaldi, wenet, audiofolder, common-voice or clips.
        task: written into every conversation, such as transcribe; asks its usual question about every clip.
        instruction: what is asked about every clip, instead of the usual question.
        text_key: the key that holds the text of a clip.
        base_dir: folder that relative paths start from; that of the file they are written in if not given.
        check_audio: open every recording, instead of looking whether it is there.
        skip_bad: list bad records in OUTPUT.rejected.jsonl and go on, instead of stopping at the first.
        overwrite: replace an output that exists.
        json: print the report as JSON.
    """
    from audiollm.data.conversion.writing import convert_data as convert
    from audiollm.data.foreign.detection import find_format
    from audiollm.prompts import clip_instruction

    if task is not None and instruction is None and not find_format(source, format).is_chat:
        instruction = clip_instruction(task, text_key)
    report = convert(
        source,
        output,
        format=format,
        task=task,
        instruction=instruction,
        text_key=text_key,
        base_dir=base_dir,
        check_audio=check_audio,
        skip_bad=skip_bad,
        overwrite=overwrite,
    )
    if json:
        show_facts(vars(report), as_json=True, title=f"converted {source}")
    else:
        write_line(str(report))


def tokenize(
    source: list[str],
    output: str,
    *,
    audio_tokenizer: str = "mini",
    codebooks: int | None = None,
    code_order: Literal["flat", "delay"] | None = None,
    batch_size: int = 16,
    num_decoders: int = 4,
    mono: Literal["first", "mean"] = "first",
    dtype: Precision = "float32",
    device: str | None = None,
    processes: int | None = None,
    ray: str | None = None,
    shard_hours: float | None = None,
    num_shards: int = 1,
    shard: int = 0,
    split: str | None = None,
    format: str | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Turn a corpus into codes, by one process or a cluster of them; the same command goes on after any interruption.

    Args:
        source: records (JSONL, parquet, a data set of the Hub), tar shards, a lhotse manifest; or audio files, and
            folders of them.
        output: where the records with codes go: a file (.jsonl or .parquet) that appears only once it is complete, or
            a folder of parquet files, named with a / at its end.
        audio_tokenizer: checkpoint folder or Hub id of the audio tokenizer; the embedded one if not given.
        codebooks: use the first so many codebooks of a tokenizer that has several, in one row for an Audio-LLM.
        code_order: make one row of the codes of several codebooks, frame by frame (flat) or with each codebook a step
            behind the one before (delay); as in the Audio-LLM that audio_tokenizer names. Without it clips get a row of
            codes for each codebook.
        batch_size: 30 s segments encoded at once.
        num_decoders: threads that decode recordings ahead of the encoder.
        mono: which waveform of a multi-channel file is heard; "first" is the reference's rule.
        dtype: precision of the encoder; bfloat16 and int8 change a few codes (see docs/tokenizer.md).
        device: torch device; the first GPU when there is one.
        processes: how many processes fill the folder, on this machine or in the cluster; one for each GPU if not given.
        ray: address of a Ray cluster that fills the folder; auto for the one that this machine is part of, local to
            start one here.
        shard_hours: hours of audio in each file of the folder; 1 if not given.
        num_shards: split the corpus into this many parts, one per process or machine.
        shard: which part this process takes, from 0.
        split: which split of a data set that has several.
        format: what the source is, if its content does not say it: lhotse, kaldi, audiofolder, common-voice, wenet.
        skip_bad: list unreadable clips in OUTPUT.rejected.jsonl and go on, instead of stopping at the first.
        overwrite: replace an output that exists.
        json: print the report as JSON.
    """
    from audiollm.data.resumable_output import checked_ending, shard_path
    from audiollm.data.tokenizing.corpus import tokenize_corpus
    from audiollm.data.tokenizing.jobs.job import tokenize_into_folder
    from audiollm.data.tokenizing.report import CorpusReport

    # All before the tokenizer is loaded, which takes longer than to notice them.
    corpus = _corpus(source)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "num_decoders": num_decoders,
        "mono": mono,
        "split": split,
        "format": format,
        "skip_bad": skip_bad,
        "overwrite": overwrite,
    }
    if _is_folder(output):
        num_shards, shard = _share_of_launch(num_shards, shard)
        if processes is None and ray is None and num_shards == 1 and device is None:
            processes = _several_gpus()
        _log_progress()
        report: CorpusReport = tokenize_into_folder(
            corpus,
            partial(_load_rows, _found_anywhere(audio_tokenizer), dtype, codebooks, code_order),
            output,
            device=device,
            processes=processes,
            ray=ray,
            shard_hours=1.0 if shard_hours is None else shard_hours,
            num_shards=num_shards,
            shard=shard,
            **options,
        )
    else:
        of_folders = {"processes": processes, "ray": ray, "shard_hours": shard_hours}
        _refuse_settings_of_folders(output, of_folders)
        refuse_existing(shard_path(checked_ending(output), shard, num_shards), overwrite)
        report = tokenize_corpus(
            corpus,
            _load_rows(audio_tokenizer, dtype, codebooks, code_order, device),
            output,
            num_shards=num_shards,
            shard=shard,
            **options,
        )
    show_facts(vars(report), as_json=json, title=f"tokenized {', '.join(map(shown_name, source))}")


def _load_rows(
    audio_tokenizer: str,
    dtype: Precision,
    codebooks: int | None,
    code_order: Literal["flat", "delay"] | None,
    device: str | None,
) -> Any:
    """The audio tokenizer, with the codes of several codebooks in one row where that is asked for."""
    from audiollm.folders import codes_known_in, layout_in
    from audiollm.tokenizer.sequence import SequenceTokenizer, as_one_row

    loaded = load_audio_tokenizer(audio_tokenizer, dtype, device)
    if codebooks is not None or code_order is not None:
        return as_one_row(loaded, codebooks, code_order or "flat")
    layout = layout_in(audio_tokenizer)
    rows = loaded if layout is None else SequenceTokenizer(loaded, layout)
    known = codes_known_in(audio_tokenizer)
    if known is not None and (own := rows.fingerprint()) != known:
        logger.warning(
            "%s knows codes of the audio tokenizer %s…, and these are of %s…, as its own was exchanged or computes in "
            "another precision (dtype %s): training it refuses them unless accept_codes_of names it",
            audio_tokenizer, known[:12], own[:12], dtype,
        )  # fmt: skip
    return rows


def _is_folder(output: str) -> bool:
    return output.endswith(os.sep) or os.path.isdir(output)


def _refuse_settings_of_folders(output: str, settings: Mapping[str, Any]) -> None:
    """Refuses what has no effect on a single file.

    Raises:
        ValueError: one of them is given.
    """
    for name, value in settings.items():
        if value is not None:
            raise ValueError(
                f"{name}={value}: is for a folder of parquet files, such as codes/; the output is {output}"
            )


def _share_of_launch(num_shards: int, shard: int) -> tuple[int, int]:
    """The part of this process where torchrun or accelerate has started several and the user has not said it."""
    if num_shards == 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    return num_shards, shard


def _several_gpus() -> int | None:
    """How many GPUs there are, if there are several: a process works for each."""
    import torch

    num_gpus = torch.cuda.device_count()
    return num_gpus if num_gpus > 1 else None


def _found_anywhere(path_or_id: str) -> str:
    """A checkpoint folder as processes find it whose working folder is another one."""
    return os.path.abspath(path_or_id) if os.path.isdir(path_or_id) else path_or_id


def _log_progress() -> None:
    """Lets a job say how far it is where there is no terminal for a bar, also without --verbose."""
    from audiollm.data.tokenizing.jobs import progress

    progress.logger.setLevel(logging.INFO)


def _corpus(sources: Sequence[str]) -> str | list[str]:
    """What is tokenized: a corpus of any kind, or the paths of several recordings.

    Raises:
        ValueError: of what comes through a pipe, or one of several is a manifest.
    """
    from audiollm.data.manifest import MANIFEST_SUFFIXES
    from audiollm.data.tokenizing.tar_shards import tar_files

    if PIPE in sources:
        raise ValueError(
            f"{PIPE}: a corpus is read from files, so that a stopped run can go on; save the recording first"
        )
    if len(sources) == 1:
        return sources[0]
    if tar_files(sources) is not None:
        return list(sources)
    for source in sources:
        if source.endswith(MANIFEST_SUFFIXES):
            raise ValueError(f"{source} is a manifest: tokenize one of them at a time, and no recordings beside it")
    return [str(recording.source) for recording in find_recordings(sources)]


def inspect_data(
    data: str,
    *,
    model: str = "mini",
    index: int | None = None,
    limit: int | None = None,
    max_length: int | None = None,
    seed: int | None = None,
    examples: int | None = None,
    json: bool = False,
) -> None:
    """Show a training record token by token as the model is trained on it, or what it will see of a mixture.

    Args:
        data: conversation records: JSONL, parquet, a saved `datasets` folder or a Hub id; or a mixture (.yaml).
        model: Audio-LLM folder (or Hub id) whose processor encodes the record; the embedded one if not given.
        index: which record, from 0; the first if not given. Not of a mixture.
        limit: print at most this many tokens. Not of a mixture.
        max_length: longest record of the training, in tokens; the model's context if not given.
        seed: of the training, which decides tasks and wordings; 0 if not given. Of a mixture only.
        examples: records of each source to show; 1 if not given. Of a mixture only.
        json: one JSON object per token, or the whole report, instead of a table.
    """
    from transformers import AutoConfig

    from audiollm.data.conversation.loading import load_conversations
    from audiollm.inspection import token_rows
    from audiollm.mixture.config import is_mixture
    from audiollm.processing.processor import AudioLLMProcessor
    from audiollm.sources.places import find_source

    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: use 1 or more")
    if seed is not None and seed < 0:
        raise ValueError(f"seed={seed}: use 0 or more, as trainings do")
    _refuse_given(is_mixture(data), index=index, limit=limit, seed=seed, examples=examples)
    model = find_source(model).model
    processor = AudioLLMProcessor.from_pretrained(model)
    context_length = AutoConfig.from_pretrained(model, trust_remote_code=False).max_position_embeddings
    if max_length is not None and not 0 < max_length <= context_length:
        raise ValueError(f"max_length={max_length}: use 1 to {context_length}, the model's context")
    if is_mixture(data):
        _inspect_mixture(data, processor, max_length or context_length, seed or 0, examples, json)
        return
    index = index or 0
    conversations = load_conversations(data, codebook_size=processor.vocabulary.codebook_size)
    if not 0 <= index < len(conversations):
        raise ValueError(f"--index {index}: {data} holds records 0 to {len(conversations) - 1}")
    conversation = conversations[index]
    rows = token_rows(processor, conversation, max_length=max_length or context_length)
    if json:
        for row in rows[:limit]:
            write_line(jsonlib.dumps(vars(row), ensure_ascii=False))
        return
    show_token_table(rows[:limit], total=len(rows), record_id=conversation.id)


def _refuse_given(is_of_mixture: bool, **options: int | None) -> None:
    """Refuses options that have no effect on what is inspected.

    Raises:
        ValueError: naming one.
    """
    of_mixtures = ("seed", "examples")
    for name, value in options.items():
        if value is not None and (name in of_mixtures) != is_of_mixture:
            kind = "a file of records" if is_of_mixture else "a mixture (.yaml)"
            raise ValueError(f"{name}={value}: has an effect on {kind} only; leave it out")


def _inspect_mixture(data: str, processor: Any, max_length: int, seed: int, examples: int | None, json: bool) -> None:
    from audiollm.mixture.report import print_report, report_on_mixture

    num_examples = 1 if examples is None else examples
    if num_examples < 0:
        raise ValueError(f"examples={examples}: use 0 or more")
    report = report_on_mixture(data, processor, max_length=max_length, seed=seed, num_examples=num_examples)
    if json:
        show_facts(report.to_dict(), as_json=True, title=data)
    else:
        print_report(report)


def speech_data(
    source: str,
    output: str,
    *,
    split: str | None = None,
    voice_share: float = 0.8,
    min_seconds: float = 0.3,
    max_seconds: float = 30.0,
    seed: int = 0,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Turn clips with texts into records that teach a model to speak, in a voice that is asked for in words.

    Args:
        source: a manifest of clips with a text and codes or audio, such as `audiollm tokenize` writes.
        output: conversation records for training/sft.py (.jsonl).
        split: use clips of this split only.
        voice_share: share of the clips with known vocal attributes whose request describes the voice.
        min_seconds: shorter clips are left out.
        max_seconds: longer clips are left out, not cut.
        seed: changes which clips get which words.
        overwrite: replace an output that exists.
        json: print the report as JSON.
    """
    from audiollm.data.resumable_output import JSON_LINES_SUFFIXES, checked_ending
    from audiollm.data.voices.speech_records import SpeechTaskSettings, write_speech_records

    refuse_existing(checked_ending(output, JSON_LINES_SUFFIXES), overwrite)
    settings = SpeechTaskSettings(
        split=split, voice_share=voice_share, min_seconds=min_seconds, max_seconds=max_seconds, seed=seed
    )
    report = write_speech_records(source, output, settings)
    if json:
        counts = {"records": report.num_records, "with_voice": report.with_voice}
        write_line(jsonlib.dumps(vars(report) | counts, ensure_ascii=False))
    else:
        write_line(str(report))


def sentence_data(
    source: list[str],
    output: str,
    *,
    templates: str | None = None,
    split: str | None = None,
    min_segments: int = 2,
    max_segments: int = 8,
    min_seconds: float = 0.3,
    max_seconds: float = 30.0,
    longest_seconds: float = 60.0,
    seed: int = 0,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Put records together into auditory sentences: several segments of audio and text, for a multi-stream LM.

    Args:
        source: manifests of clips (with words, captions, groups of longer recordings) and of conversations.
        output: conversation records for audiollm train-uniaudio (.jsonl).
        templates: which of recognition, speech, caption, continuation and conversation, with commas between; all if not
            given.
        split: use records of this split only.
        min_segments: fewest recordings and texts of a sentence.
        max_segments: most of them.
        min_seconds: shorter recordings are left out.
        max_seconds: longer recordings are left out, not cut.
        longest_seconds: most seconds of sound in a sentence.
        seed: decides which records go together, and how many.
        overwrite: replace an output that exists.
        json: print the report as JSON.
    """
    from audiollm.data.resumable_output import JSON_LINES_SUFFIXES, checked_ending
    from audiollm.data.sentences.building import SentenceSettings, write_sentences
    from audiollm.data.sentences.templates import TEMPLATES

    refuse_existing(checked_ending(output, JSON_LINES_SUFFIXES), overwrite)
    chosen: Any = TEMPLATES if templates is None else tuple(word.strip() for word in templates.split(","))
    settings = SentenceSettings(
        templates=chosen, split=split, min_segments=min_segments, max_segments=max_segments, min_seconds=min_seconds,
        max_seconds=max_seconds, longest_seconds=longest_seconds, seed=seed,
    )  # fmt: skip
    report = write_sentences(source, output, settings)
    if json:
        write_line(jsonlib.dumps(vars(report) | {"num_records": report.num_records}, ensure_ascii=False))
    else:
        write_line(str(report))
