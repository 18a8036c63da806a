"""The audio tokenizer as an ONNX graph: log-mel features in, codes out, for programs without torch.

What stands around the graph, resampling, cutting and log-mel features, is left to the program:
``examples/tokenize_with_onnx.py`` does it with numpy.
"""
# Shapes: B clips, M mel bins, F mel frames, T tokens, D feature size, P metric size, V codebook entries.

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.sources.places import find_source
from audiollm.tokenizer.checkpoints.folders import copy_listed
from audiollm.tokenizer.checkpoints.tokenizer import PAPERS, find_tokenizer
from audiollm.tokenizer.configuration import HOP_LENGTH
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.signal.log_mel import MAX_FREQUENCY, N_FFT
from audiollm.tokenizer.signal.mel import slaney_mel_filters

from .places import check_output, new_folder

MODEL_NAME, FILTERS_NAME = "audio_tokenizer.onnx", "mel_filters.npy"
OPSET = 18
"""Of ONNX: the oldest that torch's exporter writes by itself, which onnxruntime reads since 1.14."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_NEAR_TIE = 1e-3  # of two entries' scores, against the spread of all: the rounding of one float32 library or another
_TRIED_TOKENS = (1, 2, 7, 50)  # lengths of the clips that the written graph is tried on


class CodesOfFeatures(nn.Module):
    """What `UniAudioTokenizer.encode` computes of features, as one module of ordinary operators.

    Args:
        tokenizer: in evaluation mode, on the CPU, in float32.
    """

    def __init__(self, tokenizer: UniAudioTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        index = tokenizer.codebook.search_index()
        self.has_metric = index.origin is not None
        self.register_buffer("points", index.points)
        self.register_buffer("half_norms", index.half_norms)
        if index.origin is not None:
            self.register_buffer("origin", index.origin)

    points: Tensor
    half_norms: Tensor
    origin: Tensor

    def scores(self, input_features: Tensor, attention_mask: Tensor) -> Tensor:
        """How near each entry is to each frame, the nearest one largest: ``[B, T, V]``."""
        hidden_BTD = self.tokenizer.pre_quantizer_features(input_features, attention_mask)
        if self.has_metric:
            metric_PD: Any = self.tokenizer.codebook.metric
            hidden_BTD = F.linear(hidden_BTD, metric_PD, -self.origin)
        return F.linear(hidden_BTD, self.points, -self.half_norms)

    def forward(self, input_features: Tensor, attention_mask: Tensor) -> Tensor:
        """Codes, int64 ``[B, T]``.

        Args:
            input_features: Whisper's log-mel features, float32 ``[B, M, F]``, F a multiple of the frames per token.
            attention_mask: 1 for frames that begin inside the clip, int64 ``[B, F]``.
        """
        # The first of equal ones, as in the codebook's own search; ONNX promises that of its ArgMax, too.
        return self.scores(input_features, attention_mask).argmax(dim=-1)


def export_onnx(source: str | os.PathLike[str], output: str | os.PathLike[str]) -> dict[str, Any]:
    """Writes the encoder of an audio tokenizer as ONNX, and tries out whether onnxruntime finds the same codes.

    The folder holds ``audio_tokenizer.onnx``, with `metadata_of` in it, and ``mel_filters.npy``, the mel filters of its
    features, float32 ``[M, 201]``. Frames and clips may be as many as one likes, up to the encoder's positions.

    Args:
        source: folder or Hub id of an audio tokenizer or of an Audio-LLM, or "mini"; or a run, adapter or checkpoint.
        output: folder to write; must not exist or be empty, and lie outside the model.

    Returns:
        Facts: ``output``, ``opset``, ``fingerprint``, ``tried`` codes and how many of them were ``equal``.

    Raises:
        ValueError: if there is no audio tokenizer, or weights are missing, or the written graph finds other codes.
        ImportError: if onnx, onnxscript or onnxruntime are not installed.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    for folder in (source, find_source(source).model):
        check_output(output, folder)
    if missing:
        raise ImportError(f"--format onnx needs {', '.join(missing)}: run `pip install 'audiollm[onnx]'`")
    name = find_source(source).model
    tokenizer = UniAudioTokenizer.from_pretrained(name, encoder_only=True, dtype=torch.float32, decoder=False)
    if tokenizer.config.quantizer_bypassed:
        raise ValueError(f"{name} was trained without its quantizer: its codes mean little; train its second stage")
    encoder, metadata = CodesOfFeatures(tokenizer), metadata_of(tokenizer)
    with new_folder(output, name) as staging:
        _write_graph(encoder, staging / MODEL_NAME, metadata)
        filters_MF = slaney_mel_filters(N_FFT, tokenizer.config.num_mel_bins, tokenizer.sample_rate, 0.0, MAX_FREQUENCY)
        np.save(staging / FILTERS_NAME, filters_MF.numpy())
        copy_listed(find_tokenizer(name), staging, PAPERS)
        tried, equal = _try_graph(encoder, staging / MODEL_NAME)
    return {
        "output": os.fspath(output),
        "opset": OPSET,
        "fingerprint": metadata["fingerprint"],
        "tried": tried,
        "equal": equal,
    }


def metadata_of(tokenizer: UniAudioTokenizer) -> dict[str, str]:
    """What a program must know of an audio tokenizer to use its graph: text by name, numbers as JSON writes them.

    Among them are ``fingerprint`` (as in records of codes), ``sample_rate`` in Hz, ``frame_rate`` of codes in Hz,
    ``codebook_size``, ``num_mel_bins``, ``hop_length`` in samples, ``frames_per_token`` and ``segment_samples`` (the
    longest piece that is encoded at once).
    """
    config = tokenizer.config
    numbers = {
        "sample_rate": tokenizer.sample_rate,
        "frame_rate": tokenizer.frame_rate,
        "codebook_size": tokenizer.codebook_size,
        "num_mel_bins": config.num_mel_bins,
        "n_fft": N_FFT,
        "hop_length": HOP_LENGTH,
        "frames_per_token": config.token_stride // HOP_LENGTH,
        "segment_samples": config.segment_samples,
    }
    texts = {"fingerprint": tokenizer.fingerprint(), "licence_note": tokenizer.licence_note}
    made_by = {"audiollm_version": version("audiollm")}
    return {**texts, **{name: json.dumps(number) for name, number in numbers.items()}, **made_by}


def _write_graph(encoder: CodesOfFeatures, path: Path, metadata: dict[str, str]) -> None:
    """Traces the encoder with two clips, and writes the graph: with weights in a file of their own above 2 GB."""
    config = encoder.tokenizer.config
    # Any length will do that is no special case, as those of one token are.
    num_frames = min(50 * config.token_stride, config.segment_samples // config.token_stride * config.token_stride)
    num_frames //= HOP_LENGTH
    features_BMF = torch.zeros(2, config.num_mel_bins, num_frames)
    mask_BF = torch.ones(2, num_frames, dtype=torch.int64)
    with _without_advice_of_torch():
        program = torch.onnx.export(
            encoder.eval(),
            (features_BMF, mask_BF),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["input_features", "attention_mask"],
            output_names=["codes"],
            dynamic_shapes={"input_features": {0: "batch", 2: "frames"}, "attention_mask": {0: "batch", 1: "frames"}},
        )
    assert program is not None  # it is, with dynamo
    _forget_origin(program.model)
    program.model.metadata_props.update(metadata)
    program.save(path)


@contextmanager
def _without_advice_of_torch() -> Iterator[None]:
    """Leaves out what the exporter says of its own parts and of torchvision, which users cannot mend."""
    told = logging.getLogger("torch.onnx")
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        told.setLevel(level)


def _forget_origin(model: Any) -> None:
    """Takes out where each operator came from, which names files of this machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()


@torch.no_grad()
def _try_graph(encoder: CodesOfFeatures, path: Path) -> tuple[int, int]:
    """How many codes were tried, and how many are equal.

    Raises:
        ValueError: if one differs where the nearest two entries are not level but for rounding.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tokenizer = encoder.tokenizer
    generator = torch.Generator().manual_seed(0)
    tried = equal = 0
    for tokens in _TRIED_TOKENS:
        tokens = min(tokens, tokenizer.config.segment_samples // tokenizer.config.token_stride)
        num_samples = tokens * tokenizer.config.token_stride
        waveforms_BN = torch.randn(2, num_samples, generator=generator) * torch.tensor([[0.1], [0.001]])
        features_BMF = tokenizer.log_mel(waveforms_BN)
        mask_BF = torch.ones(2, features_BMF.shape[-1], dtype=torch.int64)
        mask_BF[1, features_BMF.shape[-1] // 2 + 1 :] = 0
        feeds = {"input_features": features_BMF.numpy(), "attention_mask": mask_BF.numpy()}
        found_BT = torch.from_numpy(session.run(None, feeds)[0])
        scores_BTV = encoder.scores(features_BMF, mask_BF)
        largest_BT = scores_BTV.amax(dim=-1)
        lacks_BT = largest_BT - scores_BTV.gather(-1, found_BT[..., None])[..., 0]
        if bool((lacks_BT > _NEAR_TIE * (largest_BT - scores_BTV.mean(dim=-1))).any()):
            raise ValueError(
                f"the ONNX graph finds other codes than this tokenizer does, with {tokens} codes per clip: "
                f"another version of onnx {version('onnx')} or onnxscript {version('onnxscript')} may help"
            )
        tried += found_BT.numel()
        equal += int((found_BT == scores_BTV.argmax(dim=-1)).sum())
    return tried, equal
