"""Training checkpoints of tokenizer and text decoder, and how one starts from Whisper.

The layout is that of the published trainer: one set of weights with ``model.encoder.`` and ``model.decoder.`` in front
of the names, Whisper's ``config.json`` with the tokenizer's keys, and the text tokenizer's files beside them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import WhisperFeatureExtractor, WhisperModel

from audiollm.tokenizer.checkpoints.names import TRAINING_PREFIX, released_name
from audiollm.tokenizer.checkpoints.tensors import check_complete, check_finite
from audiollm.tokenizer.checkpoints.tokenizer import (
    find_folder,
    load_tokenizer,
    torch_dtype,
    weight_files,
    write_released_config,
)
from audiollm.tokenizer.checkpoints.whisper import build_from_whisper as build_tokenizer

from .model import SupervisedTokenizer
from .text import ADDED_TOKENS, START_TOKENS, SapText
from .text_decoder import SapDecoder, whisper_decoder_tensors

TRAINING_ARCHITECTURE = "WhisperVQForConditionalGeneration"
DECODER_PREFIX = "model.decoder."
OUTPUT_IDS_FILE = "output_ids.json"


# ------------------------------------------------------------------- warm start


def build_from_whisper(
    source: str | Path | nn.Module,
    *,
    quantize_position: int,
    text: SapText | None = None,
    decoder_layers: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> SupervisedTokenizer:
    """Puts a Whisper model's encoder into a fresh tokenizer and its decoder beside it.

    Args:
        source: a folder or Hub id of any Whisper model in transformers' layout, or the loaded model.
        quantize_position: layer behind which the quantizer sits.
        text: the text tokenizer; that of ``source`` if None and there is one. The vocabulary grows to its size: rows of
            new start tokens begin as copies of ``<|startoftranscript|>``'s, from which each task then departs.
        decoder_layers: keep so many of the decoder's layers, evenly spaced, first and last among them; all if None.
        seed: for all new weights; the global generator is left alone.
        settings: as in :func:`~audiollm.tokenizer.checkpoints.whisper.build_from_whisper`, such as
            ``encoder_layers`` (the first so many) or ``max_target_positions`` (further positions repeat
            Whisper's from the first).

    Raises:
        ValueError: if ``source`` is no Whisper model or has no decoder, or the settings do not fit it.
    """
    if isinstance(source, nn.Module):
        whisper = source
    else:
        try:
            whisper = WhisperModel.from_pretrained(str(source))
        except OSError as error:
            raise ValueError(
                f"{source} is neither a folder with a Whisper model nor one on the Hub: {error}"
            ) from error
        text = SapText.from_pretrained(source) if text is None else text
    decoder_tensors = whisper_decoder_tensors(whisper.state_dict())
    if not decoder_tensors:
        raise ValueError(f"{type(whisper).__name__} has no text decoder; pass a WhisperModel or its folder")
    num_layers = 1 + max(int(name.split(".")[1]) for name in decoder_tensors if name.startswith("layers."))
    kept = evenly_spaced(num_layers, decoder_layers)
    vocab_size = len(decoder_tensors["embed_tokens.weight"])
    settings["vocab_size"] = vocab_size if text is None else max(vocab_size, len(text))
    settings["decoder_layers"] = len(kept)
    tokenizer = build_tokenizer(whisper, quantize_position=quantize_position, seed=seed, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = SapDecoder(tokenizer.config)
    copy_decoder(decoder_tensors, decoder, kept, text)
    if text is not None:
        text.max_target_positions = tokenizer.config.max_target_positions
    return SupervisedTokenizer(tokenizer, decoder, text).eval()


def evenly_spaced(num_layers: int, kept: int | None) -> list[int]:
    """Picks ``kept`` of ``num_layers`` layers, first and last among them (as Gandhi et al., 2023, arXiv:2311.00430).

    Raises:
        ValueError: if there are not so many.
    """
    if kept is None:
        return list(range(num_layers))
    if not 1 <= kept <= num_layers:
        raise ValueError(f"decoder_layers={kept}: the Whisper decoder has {num_layers} layers, use 1 to {num_layers}")
    return [round(index) for index in torch.linspace(0, num_layers - 1, kept).tolist()]


@torch.no_grad()
def copy_decoder(source: dict[str, Tensor], decoder: SapDecoder, kept: list[int], text: SapText | None) -> None:
    """Copies a Whisper decoder's tensors: the layers ``kept``, and tables of which some rows may be new."""
    target = decoder.state_dict()
    for name, tensor in target.items():
        parts = name.split(".")
        if parts[0] == "layers":
            name = ".".join(["layers", str(kept[int(parts[1])]), *parts[2:]])
        values = source[name].to(tensor.dtype)
        if name in ("embed_tokens.weight", "embed_positions.weight"):
            # Copies in turn, as Longformer extends its positions (Beltagy et al., 2020, arXiv:2004.05150).
            values = values.repeat(-(-len(tensor) // len(values)), 1)[: len(tensor)]
        tensor.copy_(values)
    if text is not None:
        embedding, num_old = target["embed_tokens.weight"], len(source["embed_tokens.weight"])
        for task, token in START_TOKENS.items():
            if token in ADDED_TOKENS and text.start_id(task) >= num_old:
                embedding[text.start_id(task)] = embedding[text.start_id("asr")]


# ---------------------------------------------------------------------- loading


def load_supervised(
    source: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
    **hub_options: Any,
) -> SupervisedTokenizer:
    """Loads a training checkpoint, of this package or of the published trainer.

    Args:
        source: a folder or Hub id.
        dtype: of the weights; float32 if None. The codebook stays float32.
        device: where to put the model; the CPU if None.
        revision: branch, tag or commit on the Hub.
        hub_options: ``cache_dir``, ``token``, ``local_files_only`` and ``subfolder``, as in transformers.

    Raises:
        ValueError: if it holds no text decoder, as an exported tokenizer does not, or its weights do not fit its
            configuration.
    """
    folder = find_folder(source, revision=revision, **hub_options)
    tokenizer = load_tokenizer(folder, dtype=dtype, decoder=False)
    tensors = read_decoder_tensors(folder)
    if not tensors:
        raise ValueError(
            f"{folder} holds a tokenizer without the text decoder that trained it; continue from the training run's "
            "model folder, or start from a Whisper checkpoint"
        )
    with torch.device("meta"):  # no memory and no random initialisation for weights about to be replaced
        decoder = SapDecoder(tokenizer.config)
    check_complete(decoder, tensors, folder)
    check_finite(tensors, folder)
    target = torch_dtype(dtype)
    if target is not None:
        tensors = {name: tensor.to(target) for name, tensor in tensors.items()}
    decoder.load_state_dict(tensors, assign=True)
    has_text = (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()
    text = SapText.from_pretrained(folder) if has_text else None
    model = SupervisedTokenizer(tokenizer, decoder, text)
    if (folder / OUTPUT_IDS_FILE).is_file():
        decoder.restrict_output(json.loads((folder / OUTPUT_IDS_FILE).read_text(encoding="utf-8")))
    return model.to(device or "cpu").eval()


def read_decoder_tensors(folder: Path) -> dict[str, Tensor]:
    """Reads the text decoder's tensors, without their prefix; none if the checkpoint has no decoder."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                if name.startswith(DECODER_PREFIX):
                    tensors[name.removeprefix(DECODER_PREFIX)] = file.get_tensor(name)
    return tensors


# ---------------------------------------------------------------------- writing


def save_supervised(model: SupervisedTokenizer, folder: str | Path) -> None:
    """Writes weights, configuration, feature extractor settings and the text tokenizer.

    The output matrix is the embedding and not stored twice. While the output is restricted, the whole embedding is
    written all the same, and the restriction beside it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {DECODER_PREFIX + name: tensor for name, tensor in model.decoder.full_state_dict().items()}
    for name, tensor in model.tokenizer.state_dict().items():
        released = released_name(name)
        if released is not None:
            tensors[TRAINING_PREFIX + released] = tensor.float() if released == "codebook_used" else tensor
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_released_config(model.config, folder, TRAINING_ARCHITECTURE, model.tokenizer.dtype)
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(folder)
    if model.text is not None:
        model.text.save_pretrained(folder)
    output_ids = model.decoder.output_ids
    (folder / OUTPUT_IDS_FILE).unlink(missing_ok=True)
    if output_ids is not None:
        (folder / OUTPUT_IDS_FILE).write_text(json.dumps(output_ids), encoding="utf-8")
