"""Evaluation of the last stage on held-out recordings: losses, use of the codes, and the sound that comes back."""
# Shapes: N samples, K codebooks, V entries.

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from audiollm.data.files.json_document import write_json
from audiollm.tokenizer.base import GroupedCodes
from audiollm.tokenizer.quantizer.usage import perplexity_of
from audiollm.tokenizer.reasoningcodec.configuration import FRAME_SAMPLES, RECONSTRUCTION, SAMPLE_RATE
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.training.decoder.validation import ORIGINAL, QUICK_METRICS, ValidationClip, measure, write_clips
from audiollm.training.loop.batches import share_of_process
from audiollm.training.recordings.checked import Recordings
from audiollm.training.recordings.segments import clip_generator

from ..reconstruction_settings import ReconstructionSettings
from ..stage_trainer import StageRun
from .objective import FLOW, PHONE, STRUCTURE, FrozenParts, ReconstructionObjective
from .segments import ReconstructionPass, SegmentDraw, mask_of

DECODED = "decoded"
PICTURED = MelConfig(sample_rate=SAMPLE_RATE)
"""The spectrogram of pictures."""
TIME = 0.5
"""Of the flow, at which its error is measured, as in the published code's validation."""


@torch.no_grad()
def evaluate_reconstruction(
    run: StageRun,
    codec: ReasoningCodec,
    frozen: FrozenParts,
    objective: ReconstructionObjective,
    recordings: Recordings,
    folder: Path,
) -> dict[str, Any]:
    """Measures on held-out recordings; all processes call it. Sounds and pictures are left in ``folder``.

    Args:
        run: the surroundings.
        codec: in evaluation mode.
        frozen: its frozen parts.
        objective: its others.
        recordings: held out.
        folder: to write into.
    """
    config, settings = run.config, run.config.reconstruction
    count = min(len(recordings), config.eval_clips or len(recordings))
    mine = share_of_process(list(range(count)), run.accelerator.process_index, run.accelerator.num_processes)
    rows: list[dict[str, Any]] = []
    for number in mine:
        waveform_N = recordings.waveform(number)[: int(settings.eval_seconds * SAMPLE_RATE)]
        one = _whole(waveform_N, codec, number).to(run.accelerator.device)
        made_of_it = frozen(one.waveforms)
        with run.accelerator.autocast():
            losses = objective(made_of_it, one)
        codes = codec.encode(waveform_N, SAMPLE_RATE)
        assert isinstance(codes, GroupedCodes)
        made_N = _decoded(codec, codes, settings)[: len(waveform_N)]
        rows.append(
            {
                "number": number,
                "losses": {name: float(loss) for name, loss in losses.items()},
                "clip": ValidationClip(recordings.id(number), None, {ORIGINAL: waveform_N, DECODED: made_N}),
                "codes": codes.groups[RECONSTRUCTION][0],
            }
        )
    everyone = sorted(gather_object(rows), key=lambda row: row["number"])
    lines: list[dict[str, Any]] = [{}]
    if run.accelerator.is_main_process:
        lines = [_tell(everyone, codec, settings, folder)]
    return broadcast_object_list(lines)[0]


def _whole(waveform_N: Tensor, codec: ReasoningCodec, number: int) -> ReconstructionPass:
    """A recording as a pass in which nothing is given or left out."""
    num_frames = -(-len(waveform_N) // FRAME_SAMPLES)
    filled_N = F.pad(waveform_N, (0, -len(waveform_N) % codec.config.whole_samples))
    draw = SegmentDraw(num_frames, num_given=0, hears_reasoning=True, has_condition=True)
    shape = (1, len(filled_N) // FRAME_SAMPLES, codec.config.latent_size)
    return ReconstructionPass(
        ids=[""],
        draws=[draw],
        positions=torch.zeros(1, dtype=torch.int64),
        waveforms=filled_N[None],
        noise=torch.randn(shape, generator=clip_generator(number)),
        times=torch.tensor([TIME]),
        num_frames=torch.tensor([num_frames]),
        mask=mask_of(draw, shape[1])[None],
        hears_reasoning=torch.ones(1, dtype=torch.bool),
        has_condition=torch.ones(1, dtype=torch.bool),
    )


def _decoded(codec: ReasoningCodec, codes: GroupedCodes, settings: ReconstructionSettings) -> Tensor:
    [made_N] = codec.decode(codes, steps=settings.eval_steps, guidance=settings.eval_guidance)
    return made_N


def _tell(
    rows: list[dict[str, Any]], codec: ReasoningCodec, settings: ReconstructionSettings, folder: Path
) -> dict[str, Any]:
    clips = [row["clip"] for row in rows]
    result = measure(clips, SAMPLE_RATE, metrics=QUICK_METRICS)
    write_clips(clips, PICTURED, folder)
    means = {name: sum(row["losses"][name] for row in rows) / len(rows) for name in (FLOW, PHONE, STRUCTURE)}
    weights = {FLOW: settings.flow_weight, PHONE: settings.phone_weight, STRUCTURE: settings.structure_weight}
    counts = [
        torch.stack([torch.bincount(row["codes"][number], minlength=size) for row in rows]).sum(dim=0)
        for number, size in enumerate(codec.config.group_sizes(RECONSTRUCTION))
    ]
    line = {
        "loss": sum(weights[name] * means[name] for name in means),
        **means,
        **result["systems"][DECODED],
        "perplexity": [round(float(perplexity_of(counts_V)), 2) for counts_V in counts],
        "codes_used": [int((counts_V > 0).sum()) for counts_V in counts],
        "num_codes": int(counts[0].sum()),
    }
    write_json(folder / "metrics.json", {**result, "reconstruction": line})
    return line
