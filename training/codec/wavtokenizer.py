"""A WavTokenizer learns: features pass as they are at first, then k-means places the entries of its codebooks."""
# Shapes: B segments, N samples, T frames, D feature size, V entries.

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import Tensor

from audiollm.tokenizer.zoo.wavtokenizer.configuration import WavTokenizerConfig
from audiollm.tokenizer.zoo.wavtokenizer.model import WavTokenizer
from audiollm.training.loop.checkpoints import Stateful

from .config import CodecTrainingConfig
from .objective import CodecObjective
from .start import scale_features, scale_to_sound


class WavTokenizerObjective(CodecObjective):
    """See `CodecObjective`; the loss of its own is the commitment of the features to the entries.

    Args:
        config: the run, of such a tokenizer.
        device: the run's.
    """

    model: WavTokenizer

    def __init__(self, config: CodecTrainingConfig, device: torch.device) -> None:
        assert isinstance(config.tokenizer, WavTokenizerConfig)
        model = WavTokenizer(
            config.tokenizer,
            ema_decay=config.codebook_decay,
            restart_interval=config.restarts_every,
            commit_coefficient=config.commitment_weight,
        ).to(device)
        model.quantizer.defer_updates()
        super().__init__(model, config, config.quantize_from)

    @property
    def extras(self) -> Mapping[str, Stateful]:
        return {"quantizer": self.model.quantizer}

    def forward(self, waveforms_BN: Tensor, positions_B: Tensor, with_codes: bool) -> tuple[Tensor, dict[str, Tensor]]:
        features_BTD = self.model.features(waveforms_BN)
        if not with_codes:
            nothing = features_BTD.new_zeros((), dtype=torch.float32)
            return self.model.synthesize(features_BTD), {"commitment": nothing}
        output = self.model.quantizer(features_BTD, example_ids_B=positions_B)
        assert output.loss is not None
        return self.model.synthesize(output.quantized), {"commitment": output.loss}

    def start(self, waveforms_BN: Tensor) -> None:
        scale_to_sound(self.model.encoder, waveforms_BN)

    @torch.no_grad()
    def begin_codes(self, segments: Callable[[], list[Tensor]]) -> None:
        """Places the entries among the features; every process sees the same, and takes those of the first."""
        model = self.model
        features = torch.cat([model.features(one.to(model.device)).flatten(0, 1) for one in segments()])
        features = scale_features(model, broadcast(features))
        model.quantizer.fit(features, seed=self.config.seed)
        for tensor in model.quantizer.state_dict().values():
            tensor.copy_(broadcast(tensor))

    def after_update(self, with_codes: bool) -> dict[str, Any]:
        if not with_codes:
            return {}
        updates = self.model.quantizer.apply_update()
        return {
            "perplexity": [round(one.perplexity, 2) for one in updates],
            "codes_restarted": sum(one.num_restarted for one in updates),
        }

    def given_back(self, waveform_1N: Tensor, with_codes: bool) -> tuple[Tensor, Tensor | None]:
        features_1TD = self.model.features(waveform_1N)
        if not with_codes:
            return self.model.synthesize(features_1TD), None
        codes_1KT = self.model.quantizer.encode(features_1TD)
        return self.model.synthesize(self.model.quantizer.decode(codes_1KT)), codes_1KT[0]

    def collapse(self, line: Mapping[str, Any]) -> str | None:
        attainable = min(self.model.codebook_size, line["num_frames"])
        for perplexity in line["perplexity"]:
            if perplexity < self.config.collapse_alarm * attainable:
                return (
                    f"the codes of {line['num_frames']} held-out frames are as varied as {perplexity:.1f} equally "
                    f"frequent ones, of {attainable} that they could be: the codebook is collapsing; lower "
                    "learning_rate or commitment_weight, raise segments_per_update, or use a smaller "
                    "tokenizer.codebook_size"
                )
        return None
