"""StableToken: from waveforms to codes by a Whisper encoder and a vote; trainable, in the released layout."""
# Shapes: B clips, M mel bins, F mel frames, T tokens, D feature size, K voters, C bits of a code.

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers.models.whisper.modeling_whisper import sinusoids
from transformers.utils import ModelOutput

from audiollm.tokenizer.base import Codes
from audiollm.tokenizer.checkpoints.fingerprint import tokenizer_fingerprint
from audiollm.tokenizer.checkpoints.tensors import check_finite
from audiollm.tokenizer.checkpoints.tokenizer import default_tensors, read_config_as, read_tensors, write_released
from audiollm.tokenizer.checkpoints.whisper import load_whisper, settings_of_whisper, take_encoder_weights
from audiollm.tokenizer.configuration import SAMPLE_RATE, WHISPER_LICENCE_NOTE
from audiollm.tokenizer.encoder.encoding import encode_chunks, encode_waveforms
from audiollm.tokenizer.encoder.whisper import AudioEncoder, EncoderState
from audiollm.tokenizer.quantizer.lfq import LFQOutput, VotingLFQ
from audiollm.tokenizer.signal.log_mel import LogMelFeatures
from audiollm.tokenizer.zoo.decodable import DecodableTokenizer

from .configuration import StableTokenConfig

RELEASED_ARCHITECTURE = "WhisperLFQEncoder"

Own = TypeVar("Own", bound="StableToken")


@dataclass
class StableTokenOutput(ModelOutput):
    """What one forward pass yields; padded positions are filled like all others."""

    codes: Tensor | None = None  # [B, T] int64
    last_hidden_state: Tensor | None = None  # [B, T, D], with the positions of the codes
    quantizer_output: Tensor | None = None  # [B, T, D], without them
    pre_quantizer_hidden: Tensor | None = None  # [B, T, D], what the quantizer saw
    voter_projections: Tensor | None = None  # [K, B, T, C] float32
    frame_mask: Tensor | None = None  # [B, T] bool, True for valid frames; None if all are
    # In training mode only, float32 scalars:
    quantizer_loss: Tensor | None = None  # the weighted sum of the others
    per_sample_entropy: Tensor | None = None
    codebook_entropy: Tensor | None = None
    commitment_loss: Tensor | None = None
    consensus_loss: Tensor | None = None


class StableToken(DecodableTokenizer):
    """Turns audio into codes that noise changes little.

    Args:
        config: the architecture; copied, so that later changes to either side stay there.

    The weights come from `from_pretrained` or, as a start for training, from `from_whisper`. In training mode `forward`
    gives the losses of the quantizer; `encode` is the same in either mode.
    """

    kind_name = "stabletoken"

    def __init__(self, config: StableTokenConfig) -> None:
        super().__init__()
        self.config = config = copy.deepcopy(config)
        config.quantize_encoder_only = True  # there is nothing behind the quantizer but the final norm
        config._attn_implementation = "sdpa"  # as transformers gives it to its own models
        self.encoder = AudioEncoder(config)
        self.codebook = VotingLFQ(
            config.quantize_vocab_size,
            config.d_model,
            num_voters=config.num_voters,
            num_clean=config.num_clean_input,
            bias=config.use_projection_bias,
            sample_weight=config.sample_minimization_weight,
            batch_weight=config.batch_maximization_weight,
            commitment_weight=config.quantize_commit_coefficient,
            consensus_weight=config.quantize_consensus_coefficient,
        )
        self.code_positions = nn.Embedding(config.num_code_positions, config.d_model)
        self.log_mel = LogMelFeatures(config.num_mel_bins)
        with torch.no_grad():
            for table in (self.encoder.embed_positions, self.code_positions):
                table.weight.copy_(sinusoids(*table.weight.shape))

    # ------------------------------------------------------------------- facts

    @property
    def sample_rate(self) -> int:
        return SAMPLE_RATE

    @property
    def num_codebooks(self) -> int:
        return 1

    @property
    def codebook_size(self) -> int:
        return self.config.quantize_vocab_size

    @property
    def frame_samples(self) -> int:
        return self.config.token_stride

    @property
    def max_segment_seconds(self) -> float:
        return self.config.segment_samples / SAMPLE_RATE

    @property
    def licence_note(self) -> str:
        return self.config.licence_note

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = tokenizer_fingerprint(self.config, self.state_dict())
        return self._fingerprint

    def train(self: Own, mode: bool = True) -> Own:
        """Puts the model into training mode, or evaluation mode; what was known of its weights is forgotten."""
        if mode:
            self._fingerprint = None
        super().train(mode)
        return self

    def settings(self) -> dict[str, Any]:
        return self.config.to_dict()

    # ----------------------------------------------------------------- forward

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        noisy_features: Tensor | None = None,
        *,
        voter_order: Tensor | None = None,
        mean_probabilities: Tensor | None = None,
    ) -> StableTokenOutput:
        """Runs all layers on log-mel features.

        Args:
            input_features: Whisper log-mel features, ``[B, M, F]``, F at most twice the number of positions.
            attention_mask: 1 for valid mel frames, ``[B, F]``; None if all are.
            noisy_features: of the same clips with noise, for training; the voters that are not clean hear them.
            voter_order: see `VotingLFQ`.
            mean_probabilities: of the update that this is a pass of, see `VotingLFQ`; with `probability_sums`.

        Raises:
            ValueError: if the features do not fit the encoder, or there are noisy ones outside training.
        """
        state, noisy = self._hear(input_features, attention_mask, noisy_features)
        quantized: LFQOutput = self.codebook(state.hidden, state.mask, noisy, voter_order, mean_probabilities)
        hidden_BTD = quantized.quantized + self.code_positions.weight[: state.hidden.shape[1]]
        if self.config.layernorm_after_quantize:
            assert self.encoder.layer_norm is not None
            hidden_BTD = self.encoder.layer_norm(hidden_BTD)
        return StableTokenOutput(
            codes=quantized.codes,
            last_hidden_state=hidden_BTD,
            quantizer_output=quantized.quantized,
            pre_quantizer_hidden=state.hidden,
            voter_projections=quantized.projections,
            frame_mask=None if state.mask is None else state.mask.bool(),
            quantizer_loss=quantized.loss,
            per_sample_entropy=quantized.per_sample_entropy,
            codebook_entropy=quantized.codebook_entropy,
            commitment_loss=quantized.commitment_loss,
            consensus_loss=quantized.consensus_loss,
        )

    @torch.no_grad()
    def probability_sums(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        noisy_features: Tensor | None = None,
        voter_order: Tensor | None = None,
    ) -> Tensor:
        """What the voters give each code, summed over the frames of a pass; see `VotingLFQ.probability_sums`."""
        state, noisy = self._hear(input_features, attention_mask, noisy_features)
        return self.codebook.probability_sums(state.hidden, state.mask, noisy, voter_order)

    def _hear(
        self, input_features: Tensor, attention_mask: Tensor | None, noisy_features: Tensor | None
    ) -> tuple[EncoderState, Tensor | None]:
        state = self._before_quantizer(input_features, attention_mask)
        noisy = None if noisy_features is None else self._before_quantizer(noisy_features, attention_mask).hidden
        return state, noisy

    def _before_quantizer(self, input_features: Tensor, attention_mask: Tensor | None) -> EncoderState:
        state = self.encoder.start(input_features, attention_mask)
        for position in range(self.config.quantize_position + 1):
            self.encoder.advance(state, position)
        return state

    def pre_quantizer_features(self, input_features: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Computes what the quantizer sees, ``[B, T, D]``, from features ``[B, M, F]``."""
        return self._before_quantizer(input_features, attention_mask).hidden

    # ------------------------------------------------------------------ encode

    def encode(
        self,
        waveforms: Sequence[Tensor] | Tensor,
        sample_rate: int,
        *,
        batch_size: int = 16,
        return_features: bool = False,
    ) -> Codes:
        """Turns waveforms into codes; each clip's codes are what it would get alone.

        Clips longer than 30 s are cut into pieces of 30 s and the codes put together again.

        Args:
            waveforms: float in [-1, 1], mono: a list of ``[N_i]``, one ``[N]``, or ``[B, N]``.
            sample_rate: of all waveforms, in Hz; resampled where needed.
            batch_size: how much is computed at once, in segments of 30 s (or as many shorter ones as that makes).
            return_features: also return what the quantizer saw, ``[T_i, D]`` per clip, on the model's device.

        Returns:
            Codes on the CPU; an empty clip has none.

        Raises:
            ValueError: if a waveform is not a float vector or holds NaN or infinity (naming the clip), or the sample
                rate makes no sense.
        """
        return encode_waveforms(self, waveforms, sample_rate, batch_size, return_features)

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        features_BTD = self.pre_quantizer_features(self.log_mel(waveforms_BN))
        return self.codebook.encode(features_BTD)[:, None]

    def encode_stream(self, chunks: Iterable[Tensor], sample_rate: int, *, batch_size: int = 1) -> Iterator[Tensor]:
        """Encodes a stream of any length in constant memory; the codes are those of `encode` of the whole.

        Args:
            chunks: consecutive pieces of one waveform, float ``[N_i]``, of any lengths.
            sample_rate: their rate in Hz.
            batch_size: 30 s segments to gather before computing; more is faster on a GPU and comes later.

        Yields:
            int64 codes ``[T]`` on the CPU, for one or more whole segments at a time.

        Raises:
            ValueError: as `encode`, when the stream comes to the bad chunk.
        """
        return encode_chunks(self, chunks, sample_rate, batch_size)

    # ------------------------------------------------------------ construction

    @classmethod
    def from_whisper(
        cls: type[Own],
        whisper: str | Path | nn.Module,
        *,
        quantize_position: int,
        codebook_size: int = 8192,
        pooling_kernel_size: int | None = 2,
        num_voters: int = 5,
        num_clean_input: int = 3,
        seed: int = 0,
        **config_values: Any,
    ) -> Own:
        """Puts the encoder of a Whisper model into a fresh tokenizer, ready for training.

        Args:
            whisper: a folder or Hub id of any Whisper model in transformers' layout, or the loaded model.
            quantize_position: layer behind which frames are pooled and quantized; half the depth is usual.
            codebook_size: V, a power of two.
            pooling_kernel_size: encoder frames per code (2: 25 codes per second); None for no pooling.
            num_voters: linear maps that vote on each bit.
            num_clean_input: of them, those that hear the clean clip in training.
            seed: for the new weights; the global generator is left alone.
            config_values: further keys of `StableTokenConfig`.

        Raises:
            ValueError: if ``whisper`` is no Whisper model or the sizes do not fit.
        """
        source = load_whisper(whisper)
        config = StableTokenConfig(
            **settings_of_whisper(source.config)
            | {
                "pooling_kernel_size": pooling_kernel_size,
                "pooling_position": quantize_position,
                "quantize_position": quantize_position,
                "quantize_vocab_size": codebook_size,
                "num_voters": num_voters,
                "num_clean_input": num_clean_input,
                "licence_note": WHISPER_LICENCE_NOTE,
            }
            | config_values
        )
        with torch.random.fork_rng(devices=[]):  # so that the caller's own draws do not depend on this one
            torch.manual_seed(seed)
            model = cls(config)
        take_encoder_weights(model.encoder, source)
        return model.eval()

    # ------------------------------------------------------------------- files

    @classmethod
    def read(cls: type[Own], folder: Path, *, encoder_only: bool = False) -> Own:
        config = read_config_as(StableTokenConfig, folder)
        with torch.device("meta"):  # no memory and no random initialisation for weights about to be replaced
            model = cls(config)
        expected = model.state_dict()
        tensors = read_tensors(folder, model.config, expected)
        tensors |= default_tensors(model.config, expected, tensors)
        check_finite(tensors, folder)
        model.load_state_dict(tensors, assign=True)
        return model

    def save_tokenizer(self, folder: Path) -> None:
        """Writes the released layout: config, weights and feature extractor settings."""
        write_released(self.config, self.state_dict(), folder, self.dtype, architecture=RELEASED_ARCHITECTURE)
