"""Commands on checkpoints (extending, exporting, converting, uploading) and on the installation (`audiollm doctor`)."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Literal

from audiollm.data.files.replacing import refuse_existing
from audiollm.facts import show_facts

from .console import Dtype, absence_told, load_audio_tokenizer, show_diagnosis, show_kinds, write_line


def extend_llm(  # not `extend`: the parser would look up that public name and so load torch
    llm: str,
    output_dir: str,
    *,
    audio_tokenizer: str = "mini",
    codebooks: int | None = None,
    code_order: Literal["flat", "delay"] = "flat",
    init: Literal["text", "codebook"] = "text",
    dtype: Dtype = "bfloat16",
    seed: int = 0,
    json: bool = False,
) -> None:
    """Give a text LLM the audio vocabulary and write an Audio-LLM checkpoint, ready for training/sft.py.

    Args:
        llm: checkpoint folder or Hub id of a causal LM with a fast tokenizer, such as Qwen/Qwen2.5-0.5B.
        output_dir: the folder to write; must not exist or be empty.
        audio_tokenizer: checkpoint folder or Hub id of the audio tokenizer, the embedded one if not given; a copy goes
            into the checkpoint.
        codebooks: use the first so many codebooks of a tokenizer that has several; all if not given.
        code_order: how the codes of several codebooks follow each other: frame by frame (flat), or each codebook a step
            behind the one before (delay).
        init: draw the new embedding rows like text rows, or project them from the tokenizer's codebook.
        dtype: precision of the written weights.
        seed: seed of the new rows.
        json: print the summary as JSON.
    """
    import torch

    from audiollm.folders import check_text_llm
    from audiollm.mini import audio_tokenizer_or_mini
    from audiollm.modeling import AudioLLM
    from audiollm.processing.audio_rate import AudioRate
    from audiollm.tokenizer.checkpoints.card import Base, write_card

    _refuse_filled(output_dir, "the Audio-LLM checkpoint")
    check_text_llm(llm)
    # float32 whatever the LLM's dtype is: the checkpoint keeps these weights, and lower precision changes some codes.
    loaded = load_audio_tokenizer(audio_tokenizer, "float32", "cpu", decodes=True)  # whole, as it is saved
    with absence_told(llm):
        model = AudioLLM.create(
            llm,
            audio_tokenizer=loaded,
            codebooks=codebooks,
            code_order=code_order,
            init=init,
            seed=seed,
            dtype=getattr(torch, dtype),
        )
    model.save_pretrained(output_dir)
    bases = [
        Base("text LLM", llm),
        Base("audio tokenizer", audio_tokenizer, Path(audio_tokenizer_or_mini(audio_tokenizer))),
    ]
    note = "The rows of its audio tokens are new: train it before it is used."
    write_card(Path(output_dir), "audio_llm", title=Path(output_dir).resolve().name, bases=bases, note=note)
    summary = {
        "output": output_dir,
        "codebook_size": model.vocabulary.codebook_size,
        "tokens_per_second_of_audio": AudioRate.of(model.processor.audio_tokenizer).tokens_per_second,
        "first_code_id": model.vocabulary.first_code_id,
        "embedding_rows": model.model.get_input_embeddings().weight.shape[0],
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
    }
    show_facts(summary, as_json=json, title="extended vocabulary")


def export_tokenizer(source: str, output_dir: str) -> None:
    """Write the tokenizer of a training run in the released layout: only what decides the codes.

    The text decoder that supervised it and the layers behind the quantizer stay behind; the codes are the same.

    Args:
        source: a run of training/train_tokenizer.py, or the folder of a full training checkpoint.
        output_dir: folder to write; must not exist or be empty.
    """
    from audiollm.tokenizer.checkpoints.folders import copy_listed
    from audiollm.tokenizer.checkpoints.tokenizer import PAPERS
    from audiollm.tokenizer.supervision.checkpoints import NoTextDecoderError
    from audiollm.tokenizer.supervision.opening import open_supervised
    from audiollm.training.loop.config import MODEL_FOLDER

    _refuse_filled(output_dir, "the tokenizer")
    run_model = Path(source) / MODEL_FOLDER
    trained = str(run_model) if run_model.is_dir() else source
    try:
        model = open_supervised(trained)
    except NoTextDecoderError as error:
        raise ValueError(
            f"{source} is exported already: use it as it is, such as with --audio-tokenizer {source}"
        ) from error
    model.export_tokenizer(output_dir)
    if Path(trained).is_dir():  # its card, which holds for the exported tokenizer too
        copy_listed(Path(trained), Path(output_dir), PAPERS)
    write_line(f"wrote {output_dir}: {model.tokenizer.codebook_size} codes, {model.tokenizer.frame_rate:g} per second")


def export(
    model: str,
    output_dir: str,
    *,
    format: Literal["bfloat16", "float16", "float32", "int8", "int4", "onnx"] = "bfloat16",
    json: bool = False,
) -> None:
    """Write a model for other programs: one whole checkpoint, one in fewer bits, or its audio tokenizer as ONNX.

    Args:
        model: folder or Hub id of an Audio-LLM, of a run, an adapter (which is merged) or a checkpoint; of an audio
            tokenizer, too, for onnx.
        output_dir: folder to write; must not exist or be empty.
        format: bfloat16, float16 and float32 are plain weights; int8 and int4 round those of the LLM's linear layers
            by bitsandbytes; onnx holds the encoder of the audio tokenizer, from log-mel features to codes.
        json: print the summary as JSON.
    """
    from audiollm.exporting import export_checkpoint, export_onnx

    if format == "onnx":
        with absence_told(model):
            show_facts(export_onnx(model, output_dir), as_json=json, title="audio tokenizer in ONNX")
        return
    with absence_told(model):
        folder = export_checkpoint(model, output_dir, format)
    size = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
    facts = {"output": output_dir, "format": format, "megabytes_of_weights": round(size / 1e6, 1)}
    show_facts(facts, as_json=json, title="exported model")


def convert(source: str, output_dir: str, *, overwrite: bool = False) -> None:
    """Rewrite a released waveform decoder (config.yaml, flow.pt, hift.pt) as safetensors and JSON.

    No weight changes. What is read is only ever data: an unknown tag of the YAML, or code in a .pt file, is refused.

    Args:
        source: the decoder's folder or Hub id, or a folder that holds decoder/.
        output_dir: folder to write.
        overwrite: replace a converted decoder that is there.
    """
    from audiollm.tokenizer.decoder.checkpoints.files import OWN_FILES
    from audiollm.tokenizer.decoder.model import convert_decoder

    for name in OWN_FILES:
        refuse_existing(Path(output_dir) / name, overwrite)

    write_line(f"wrote {convert_decoder(source, output_dir)}")


def push(
    folder: str,
    repo_id: str,
    *,
    token: str | None = None,
    revision: str | None = None,
    tags: str | None = None,
    private: bool = False,
    commit_message: str = "Upload",
) -> None:
    """Upload a model to the Hub: an Audio-LLM, an adapter, an audio tokenizer, a diffusion model, a decoder or a part.

    Only the model's files go there, by their names: no checkpoints, no links, no other files. The example in its card
    then loads the repository.

    Args:
        folder: the model's folder, or that of the run that trained it.
        repo_id: owner/name, or a name under the token's owner; the repository is made if it is not there.
        token: of the Hub; better set in HF_TOKEN, or kept by `hf auth login`, as others see command lines.
        revision: branch to upload to, made if it is not there.
        tags: more tags for the card, such as speech,english.
        private: make a new repository private.
        commit_message: first line of the commit.
    """
    import tempfile

    from audiollm.folders import copy_model, trained_model
    from audiollm.tokenizer.checkpoints.hub import push_files, require_token

    require_token(repo_id, token)
    with tempfile.TemporaryDirectory() as staging:
        kind = copy_model(trained_model(folder), Path(staging))
        address = push_files(
            Path(staging),
            repo_id,
            kind,
            token=token,
            revision=revision,
            tags=[tag for tag in (tags or "").split(",") if tag],
            private=private or None,  # whether an existing one is, is not changed
            commit_message=commit_message,
        )
    write_line(f"uploaded {folder} to {address}")


def _refuse_filled(folder: str, purpose: str) -> None:
    from audiollm.data.files.lock import holds_nothing

    if not holds_nothing(folder):
        raise ValueError(f"{folder} is not empty; name a new folder for {purpose}")


def tokenizers(audio_tokenizer: str | None = None, *, device: str | None = None, json: bool = False) -> None:
    """List the kinds of audio tokenizers that can be opened, or say what one is: sizes, rates, abilities, licence.

    Args:
        audio_tokenizer: folder or Hub id of one, or mini; all kinds are listed if not given.
        device: torch device that it is loaded on; the first GPU when there is one.
        json: print as JSON.
    """
    from audiollm.tokenizer.facts import facts_of_kinds, facts_of_tokenizer

    if audio_tokenizer is None:
        if device is not None:
            raise ValueError("--device is for one tokenizer: name its folder, or leave it out")
        kinds = facts_of_kinds()
        if json:
            write_line(jsonlib.dumps(kinds, indent=2, ensure_ascii=False))
        else:
            show_kinds(kinds)
        return
    loaded = load_audio_tokenizer(audio_tokenizer, "float32", device, decodes=True, may_lack_codes=True)
    facts = facts_of_tokenizer(loaded)
    shown = facts if json else facts | {"codebook_sizes": _sizes(facts["codebook_sizes"])}
    show_facts(shown, as_json=json, title=f"audio tokenizer {audio_tokenizer}")


def _sizes(sizes: list[int]) -> str | None:
    """``8 × 1,024`` of codebooks that are equally large."""
    if len(set(sizes)) == 1:
        return f"{len(sizes)} × {sizes[0]:,}"
    return ", ".join(f"{size:,}" for size in sizes) or None


def doctor(*, bench: bool = False, json: bool = False) -> None:
    """Report versions, devices and optional parts, and how to get what is missing.

    Args:
        bench: also measure, in some 20 seconds, what this machine's processor does best, in which precision.
        json: print the report as JSON.
    """
    from audiollm.environment import diagnose

    report = diagnose()
    if not report["missing"]:  # or else they may not be there to be asked
        from audiollm.data.audio.decoders import available_decoders
        from audiollm.tokenizer.machine.processor import describe_processor

        report["decoders"] = available_decoders()
        report["processor"] = describe_processor()
    if bench and not report["missing"]:
        from audiollm.trial_run import try_machine

        report["bench"] = try_machine(lambda told: print(f"measuring: {told}", file=sys.stderr))  # noqa: T201
    if json:
        write_line(jsonlib.dumps(report, indent=2))
    else:
        show_diagnosis(report)
    if report["missing"]:
        raise SystemExit(1)
