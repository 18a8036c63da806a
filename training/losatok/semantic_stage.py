"""Training of SemBo, the first stage: a frozen teacher's features made small."""
# Shapes: B segments, N samples, T tokens, E feature size, D latent size.

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from audiollm.data.files.json_document import write_json
from audiollm.tokenizer.losatok.bottleneck import reconstruction_loss, relation_loss
from audiollm.tokenizer.losatok.front_ends import cut_pieces, extend
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.training.loop.ema import averaged

from .figures import effective_rank, spectrum
from .plots import draw_relations, draw_spectra
from .segments import SegmentPass
from .trainer import LoSATokRun, StageTrainer


class SemanticObjective(nn.Module):
    """Both losses as one forward pass, which is what data parallelism and mixed precision wrap."""

    def __init__(self, semantic: SemanticEncoder) -> None:
        super().__init__()
        self.semantic = semantic

    def forward(self, waveforms_BN: Tensor) -> dict[str, Tensor]:
        """Returns the losses of segments ``[B, N]``."""
        return bottleneck_losses(self.semantic, self.high(waveforms_BN))

    def high(self, waveforms_BN: Tensor) -> Tensor:
        """The teacher's features of equally long clips, ``[B, T, E]``."""
        return high_features(self.semantic, waveforms_BN)


@torch.no_grad()
def high_features(semantic: SemanticEncoder, waveforms_BN: Tensor) -> Tensor:
    """The teacher's features of equally long whole clips, ``[B, T, E]``."""
    teacher = semantic.teacher
    pieces = cut_pieces(extend(waveforms_BN), waveforms_BN.shape[1], teacher.piece_tokens)
    loudest_B = teacher.loudest_of(pieces)
    return torch.cat([semantic.high(piece, loudest_B) for piece in pieces], dim=1)


def bottleneck_losses(semantic: SemanticEncoder, high_BTE: Tensor) -> dict[str, Tensor]:
    """``reconstruction`` and ``relation`` of the bottleneck."""
    low_BTD, restored_BTE = semantic.bottleneck(high_BTE)
    return {
        "reconstruction": reconstruction_loss(restored_BTE, high_BTE),
        "relation": relation_loss(low_BTD, high_BTE),
    }


class SemanticTrainer(StageTrainer):
    """Trains the bottleneck of a semantic side.

    Args:
        run: its surroundings.
        semantic: with a teacher, and a bottleneck to train.
    """

    def __init__(self, run: LoSATokRun, semantic: SemanticEncoder) -> None:
        self._semantic = semantic.to(run.accelerator.device)
        super().__init__(run, SemanticObjective(self._semantic), semantic.config.latent_size)

    def accumulate(self, step: int, one: SegmentPass, scale: float, is_last: bool) -> dict[str, Tensor]:
        parts = self.model(one.waveforms)
        loss = self._total(parts)
        self.run.accelerator.backward(loss * scale)
        return {"loss": loss, **parts}

    def _total(self, parts: dict[str, Tensor]) -> Tensor:
        settings = self.run.config.semantic
        total: Tensor = settings.reconstruction_weight * parts["reconstruction"]
        return total + settings.relation_weight * parts["relation"]

    @torch.no_grad()
    def evaluate(self, step: int, folder: Path) -> dict[str, Any]:
        """Both losses on held-out recordings, and how many directions high and low features use."""
        rows: list[dict[str, Any]] = []
        with averaged(self._ema):
            for number, waveform in self.held_out_clips():
                high = high_features(self._semantic, waveform[None].to(self.run.accelerator.device))
                parts = bottleneck_losses(self._semantic, high)
                low = self._semantic.bottleneck.compress(high)
                row = {"number": number, "loss": float(self._total(parts))}
                row |= {name: float(value) for name, value in parts.items()}
                rows.append(row | {"high": high[0].cpu(), "low": low[0].cpu()})
        everyone = sorted(gather_object(rows), key=lambda row: row["number"])
        lines: list[dict[str, Any]] = [{}]
        if self.run.accelerator.is_main_process and everyone:
            lines = [_tell(everyone, folder / f"step_{step:06d}")]
        return broadcast_object_list(lines)[0]

    def write_model(self, folder: Path) -> None:
        self._semantic.save_pretrained(folder)


def _tell(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    line: dict[str, Any] = {
        name: sum(row[name] for row in rows) / len(rows) for name in ("loss", "reconstruction", "relation")
    }
    features = {name: torch.cat([row[name] for row in rows]) for name in ("high", "low")}
    line |= {f"effective_rank_{name}": effective_rank(one) for name, one in features.items()}
    draw_spectra(folder / "spectra.png", {name: spectrum(one) for name, one in features.items()})
    draw_relations(folder / "relations.png", {name: rows[0][name] for name in ("high", "low")})
    write_json(folder / "metrics.json", line)
    return line
