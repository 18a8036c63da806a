"""UniAudio-Token: a Whisper encoder with a vector quantizer in its middle, 25 codes of 13 bits per second.

Reading order: `UniAudioTokenizer.forward` here (features to codes), ``encoder/`` and ``quantizer/`` (its parts),
``encoder/encoding.py`` (waveforms to codes), ``checkpoints/`` (where the weights come from).
"""
# Shapes: B clips, M mel bins, F mel frames, T tokens (F / 2 before pooling), D feature size.

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForAudioTokenization,
    AutoModelForCausalLM,
    AutoTokenizer,
    WhisperFeatureExtractor,
)
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedAudioTokenizerBase
from transformers.models.whisper.modeling_whisper import sinusoids
from transformers.utils import ModelOutput

from audiollm.tokenizer.checkpoints.fingerprint import tokenizer_fingerprint
from audiollm.tokenizer.checkpoints.folders import replaced_files
from audiollm.tokenizer.checkpoints.glm4_voice import is_glm4_voice
from audiollm.tokenizer.checkpoints.hub import push_saved
from audiollm.tokenizer.checkpoints.tensors import check_finite, torch_dtype
from audiollm.tokenizer.checkpoints.tokenizer import (
    WEIGHT_FILES,
    default_tensors,
    feature_extractor_of,
    find_tokenizer,
    read_config,
    read_tensors,
    write_released,
)
from audiollm.tokenizer.checkpoints.whisper import load_whisper, settings_of_whisper, take_encoder_weights
from audiollm.tokenizer.decoder.attachable import WithWaveformDecoder
from audiollm.tokenizer.encoder.encoding import encode_chunks, encode_waveforms
from audiollm.tokenizer.encoder.sae import SemanticAcousticEquilibrium, gate_per_frame, mean_gate, mean_gate_per_clip
from audiollm.tokenizer.encoder.segments import count_tokens
from audiollm.tokenizer.encoder.whisper import AudioEncoder
from audiollm.tokenizer.int8 import round_once
from audiollm.tokenizer.quantizer.codebook import Codebook
from audiollm.tokenizer.quantizer.kmeans import CodebookFit, fit_entries
from audiollm.tokenizer.signal.log_mel import LogMelFeatures
from audiollm.tokenizer.signal.resampling import check_sample_rate

from .base import AudioTokenizer, Codes
from .configuration import SAMPLE_RATE, WHISPER_LICENCE_NOTE, UniAudioTokenizerConfig

logger = logging.getLogger(__name__)

DEFAULT_SAE_SOURCE_POSITION = 3  # the released tokenizer's
HUB_ARGUMENTS = (
    "repo_id", "token", "commit_message", "commit_description", "private", "revision", "create_pr", "tags",
)  # fmt: skip


@dataclass
class UniAudioTokenizerOutput(ModelOutput):
    """What one forward pass yields; padded positions are filled like all others."""

    codes: Tensor | None = None  # [B, T] int64
    last_hidden_state: Tensor | None = None  # [B, T, D], after all layers that exist
    pre_quantizer_hidden: Tensor | None = None  # [B, T, D], what the quantizer saw
    gate_mean: Tensor | None = None  # scalar; 1 if the SAE runs without a gate, None if it does not run
    gate_means: Tensor | None = None  # [B] float32: the same for each clip alone
    frame_mask: Tensor | None = None  # [B, T] bool, True for valid frames; None if all are
    hidden_states: tuple[Tensor, ...] | None = None  # input of each layer, then the final output
    quantizer_loss: Tensor | None = None  # scalar, in training mode only
    perplexity: Tensor | None = None  # scalar, in training mode only
    num_restarted: int | None = None  # codebook rows restarted by this step, in training mode only
    squared_error: Tensor | None = None  # [B, T] float32: mean squared distance of a frame to its entry, detached


class UniAudioTokenizer(WithWaveformDecoder, PreTrainedAudioTokenizerBase, AudioTokenizer):
    """Turns audio into codes.

    Args:
        config: the architecture; copied, so that later changes to either side stay there.

    The weights come from `from_pretrained` (a released checkpoint, a training checkpoint or one of our own) or
    `from_whisper` (a start for training). In training mode `forward` updates the codebook; `encode`
    never does.
    """

    config_class = UniAudioTokenizerConfig
    base_model_prefix = ""
    main_input_name = "input_features"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("EncoderLayer",)

    def __init__(self, config: UniAudioTokenizerConfig) -> None:
        super().__init__(copy.deepcopy(config))
        config = self.config
        self.encoder = AudioEncoder(config)
        self.sae: SemanticAcousticEquilibrium | None = None
        if config.has_sae:
            self.sae = SemanticAcousticEquilibrium(
                config.d_model, use_adapter=config.use_residual_adapter, use_gate=config.use_residual_gate
            )
        self.codebook = Codebook(
            config.quantize_vocab_size,
            config.d_model,
            ema_decay=config.quantize_ema_decay,
            restart_interval=config.quantize_restart_interval,
            commit_coefficient=config.quantize_commit_coefficient,
            loss_scale=config.quantize_loss_scale,
            metric_size=config.quantize_metric_size,
        )
        self.code_positions = nn.Embedding(config.num_code_positions, config.d_model)
        self.log_mel = LogMelFeatures(config.num_mel_bins)
        self._int8_fingerprint: str | None = None
        self._compiled: Callable[..., UniAudioTokenizerOutput] | None = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):  # both are position tables
            init.copy_(module.weight, sinusoids(*module.weight.shape))
        elif isinstance(module, Codebook):
            init.normal_(module.weight, std=self.config.init_std)
            module.reset_statistics()

    # ------------------------------------------------------------------ facts

    @property
    def kind(self) -> str:
        return "glm4_voice" if is_glm4_voice(self.config.to_dict()) else "uniaudio"

    @property
    def sample_rate(self) -> int:
        return SAMPLE_RATE

    @property
    def frame_rate(self) -> float:
        return self.config.frame_rate

    @property
    def num_codebooks(self) -> int:
        return 1

    @property
    def codebook_size(self) -> int:
        return self.config.quantize_vocab_size

    @property
    def max_segment_seconds(self) -> float:
        return self.config.segment_samples / SAMPLE_RATE

    @property
    def licence_note(self) -> str:
        return self.config.licence_note

    @property
    def sae_is_active(self) -> bool:
        """Whether the SAE reaches the codes; behind the quantizer it only reaches a text decoder."""
        return self.config.sae_is_active

    @property
    def feature_extractor(self) -> WhisperFeatureExtractor:
        """What `AutoFeatureExtractor` finds beside this model; `encode` needs it not."""
        return feature_extractor_of(self.config)

    def num_tokens(self, num_samples: int, sample_rate: int) -> int:
        """Counts the tokens that `encode` makes of a clip, without encoding it.

        Args:
            num_samples: length of the clip at its own rate.
            sample_rate: that rate in Hz.
        """
        resampled = -(-num_samples * SAMPLE_RATE // check_sample_rate(sample_rate))
        return count_tokens(resampled, self.config.segment_samples, self.config.token_stride)

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        return self.num_tokens(num_samples, sample_rate)

    def fingerprint(self) -> str:
        """Returns a SHA-256 over everything that decides the codes, for cache keys and manifests."""
        return self._int8_fingerprint or tokenizer_fingerprint(self.config, self.state_dict())

    # ---------------------------------------------------------------- forward

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        codes: Tensor | None = None,
        output_hidden_states: bool = False,
        *,
        quantize: bool = True,
        example_ids: Tensor | None = None,
    ) -> UniAudioTokenizerOutput:
        """Runs all layers on log-mel features.

        Args:
            input_features: Whisper log-mel features, ``[B, M, F]``, F at most twice the number of positions.
            attention_mask: 1 for valid mel frames, ``[B, F]``; None if all are.
            codes: codes to use in place of the nearest ones, int64 ``[B, T]``.
            output_hidden_states: also return the input of each layer.
            quantize: False lets the features pass the quantizer unchanged, as the first stage of training does; the
                positions of the codes are added all the same, and there are no codes.
            example_ids: in training with ``codebook.deferred``, the place of each clip in the update, int64 ``[B]``.

        Raises:
            ValueError: if the features do not fit the encoder, or codes are out of range or of the wrong shape.
        """
        return self._run_layers(
            input_features,
            attention_mask,
            codes,
            output_hidden_states=output_hidden_states,
            quantize=quantize,
            example_ids=example_ids,
        )

    def _run_layers(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None,
        codes: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        stop_before_quantizer: bool = False,
        quantize: bool = True,
        example_ids: Tensor | None = None,
    ) -> UniAudioTokenizerOutput:
        """The encoder: at each position, in this order, pool, keep the SAE's source, apply the SAE, quantize."""
        config, encoder = self.config, self.encoder
        state = encoder.start(input_features, attention_mask)
        output = UniAudioTokenizerOutput()
        shallow, layer_inputs = None, []
        for position in range(len(encoder.layers) + 1):
            if position > 0:
                layer_inputs.append(state.hidden)
            encoder.advance(state, position)
            if position == config.pooling_position:
                # A source in front of the pooling is pooled along, to add up with a target behind it.
                shallow = None if shallow is None else encoder.pool(shallow)
            if position == config.encoder_residual_source_position:
                shallow = state.hidden
            if position == config.encoder_residual_target_position:
                state.hidden = self._apply_sae(state.hidden, cast(Tensor, shallow), state.mask, output)
            if position == config.quantize_position:
                output.pre_quantizer_hidden = state.hidden
                if stop_before_quantizer:
                    return output
                if quantize:
                    state.hidden = self._quantize(state.hidden, state.mask, codes, example_ids, output)
                # Added also without quantizing: layers behind see the same positions in both stages of training.
                state.hidden = state.hidden + self.code_positions.weight[: state.hidden.shape[1]]
        hidden, mask = state.hidden, state.mask
        output.frame_mask = None if mask is None else mask.bool()
        output.last_hidden_state = hidden if encoder.layer_norm is None else encoder.layer_norm(hidden)
        if output_hidden_states:
            output.hidden_states = (*layer_inputs, output.last_hidden_state)
        return output

    def _apply_sae(
        self, deep_BTD: Tensor, shallow_BTD: Tensor, mask_BT: Tensor | None, output: UniAudioTokenizerOutput
    ) -> Tensor:
        assert self.sae is not None
        fused_BTD, gate_BTD = self.sae(deep_BTD, shallow_BTD)
        gate_BT = gate_per_frame(gate_BTD, fused_BTD)
        output.gate_mean, output.gate_means = mean_gate(gate_BT, mask_BT), mean_gate_per_clip(gate_BT, mask_BT)
        return cast(Tensor, fused_BTD)

    def _quantize(
        self,
        hidden_BTD: Tensor,
        mask_BT: Tensor | None,
        codes_BT: Tensor | None,
        example_ids_B: Tensor | None,
        output: UniAudioTokenizerOutput,
    ) -> Tensor:
        if codes_BT is not None and codes_BT.shape != hidden_BTD.shape[:2]:
            raise ValueError(
                f"codes have shape {list(codes_BT.shape)}, but the features give {list(hidden_BTD.shape[:2])}"
            )
        quantized = self.codebook(hidden_BTD, mask_BT, codes_BT, example_ids_B)
        output.codes, output.squared_error = quantized.codes, quantized.squared_error
        output.quantizer_loss, output.perplexity = quantized.loss, quantized.perplexity
        output.num_restarted = quantized.num_restarted if self.training else None
        return cast(Tensor, quantized.quantized)

    def pre_quantizer_features(self, input_features: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Computes what the quantizer sees, ``[B, T, D]``, from features ``[B, M, F]``; later layers do not run."""
        run = self._compiled or self._run_layers
        return cast(Tensor, run(input_features, attention_mask, stop_before_quantizer=True).pre_quantizer_hidden)

    def compile_encoder(self, **options: Any) -> None:
        """Compiles what `encode` runs with ``torch.compile(**options)``; the first calls take minutes.

        Lengths differ from clip to clip, so shapes are dynamic unless ``options`` say otherwise.
        """
        self._compiled = torch.compile(self._run_layers, **{"dynamic": True, **options})

    def to_int8(self) -> UniAudioTokenizer:
        """Computes the linear layers of the encoder in 8-bit integers from now on, in place, on processors alone.

        Some codes change; how many depends on the weights (`audiollm.tokenizer.int8`). It can no longer be saved.

        Raises:
            ValueError: if this machine cannot, or the tokenizer is on a GPU.
        """
        round_once(self, self.encoder, self.sae)
        return self

    # ----------------------------------------------------------------- encode

    def encode(
        self,
        waveforms: Sequence[Tensor] | Tensor,
        sample_rate: int,
        *,
        batch_size: int = 16,
        return_features: bool = False,
    ) -> Codes:
        """Turns waveforms into codes; each clip's codes are what it would get alone.

        Clips longer than 30 s are cut into pieces of 30 s and the codes put together again. Only the layers up to the
        quantizer are computed, without dropout and without touching the codebook, in training mode too.

        Args:
            waveforms: float in [-1, 1], mono: a list of ``[N_i]``, one ``[N]``, or ``[B, N]``.
            sample_rate: rate of all waveforms in Hz; resampled to 16 kHz where needed.
            batch_size: how much is computed at once, in segments of 30 s (or as many shorter ones as that makes).
            return_features: also return what the quantizer saw, ``[T_i, D]`` per clip, on the model's device.

        Returns:
            Codes on the CPU; an empty clip has none.

        Raises:
            ValueError: if a waveform is not a float vector or holds NaN or infinity (naming the clip), or the sample
                rate makes no sense.
        """
        return encode_waveforms(self, waveforms, sample_rate, batch_size, return_features)

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

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Writes the tokenizer, its feature extractor, and its waveform decoder into ``decoder/``.

        Each file appears whole or not at all, and those of two processes that write one folder do not mix.

        Args:
            save_directory: folder to write.
            is_main_process: whether this process writes.
            push_to_hub: also upload it, as `push_to_hub` does; ``repo_id`` says where.
            kwargs: as in transformers.
        """
        upload = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        if not is_main_process:
            return
        with replaced_files(Path(save_directory), "config.json", outdated=[WEIGHT_FILES]) as staging:
            super().save_pretrained(staging, **kwargs)
            self.feature_extractor.save_pretrained(staging)
            if self._attached_decoder is not None:
                self._attached_decoder.save(staging / "decoder")
        if push_to_hub:  # not by transformers' save, which would leave out the decoder
            self.push_to_hub(upload.pop("repo_id", Path(save_directory).name), **upload)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads what `save_pretrained` writes, the waveform decoder included, and a basic card.

        Args:
            repo_id: ``owner/name``, or a name under the token's owner; the repository is made if it is not there.
            options: ``token``, ``revision``, ``tags``, ``private``, ``commit_message`` …: see
                `push_files`.

        Returns:
            The address of the repository.

        Raises:
            ValueError: without a token, or where the Hub refuses; nothing is written before a token is there.
        """
        return push_saved(self.save_pretrained, repo_id, "audio_tokenizer", **options)

    def export_released(self, folder: str | Path) -> None:
        """Writes the encoder-only checkpoint in the released layout: config, weights and feature extractor settings.

        Layers behind the quantizer, the final norm and the waveform decoder are left out, as in a release's
        ``tokenizer/``.
        """
        write_released(self.config, self.state_dict(), folder, self.dtype)

    # ----------------------------------------------------------- construction

    @classmethod
    def from_pretrained(  # type: ignore[override]  # by name too, as of any model in transformers
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        encoder_only: bool = False,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        revision: str | None = None,
        config: UniAudioTokenizerConfig | None = None,
        decoder: bool | str | Path = True,
        fingerprint: str | None = None,
        **kwargs: Any,
    ) -> UniAudioTokenizer:
        """Loads a released tokenizer, a full training checkpoint, or what `save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path: a folder (the tokenizer's own, its release's or its Audio-LLM's), a Hub id,
                or "mini": that of the small model that comes with this package.
            encoder_only: leave out the layers behind the quantizer, which codes do not need; they are not even read.
            dtype: of the weights; float32 if None, ``"auto"`` for the checkpoint's own. The codebook stays float32.
            device: where to put the model; the CPU if None.
            revision: branch, tag or commit on the Hub.
            config: in place of the folder's ``config.json``.
            decoder: the waveform decoder: True takes the one in ``decoder/``, inside this folder or beside it, if there
                is one; False none; a folder or Hub id another one. Its weights are read when it is first used.
            fingerprint: of the audio tokenizer that is meant, as `fingerprint` gives it; another one is refused.
            kwargs: ``cache_dir``, ``token``, ``local_files_only``, ``force_download`` and ``subfolder``, as in
                transformers.

        Raises:
            ValueError: if the folder holds no tokenizer, or its weights have missing, unknown or misshapen tensors (the
                message lists them), or the decoder is refused or made for other codes, or the fingerprint differs.
        """
        hub_options = {"revision": revision, **kwargs}
        folder = find_tokenizer(pretrained_model_name_or_path, **hub_options)
        config = copy.deepcopy(config) if config is not None else read_config(folder)
        if encoder_only:
            config.quantize_encoder_only = True
        with torch.device("meta"):  # no memory and no random initialisation for weights about to be replaced
            model = cls(config)
        expected = model.state_dict()
        tensors = read_tensors(folder, config, expected)
        tensors |= default_tensors(config, expected, tensors)
        # The published trainer leaves chance values in its running sums; codes do not depend on those.
        check_finite({name: tensor for name, tensor in tensors.items() if not name.startswith("codebook.ema_")}, folder)
        if fingerprint is not None:
            _check_fingerprint(config, tensors, fingerprint, folder)
        target = torch_dtype(dtype)
        model.load_state_dict({name: _cast(name, tensor, target) for name, tensor in tensors.items()}, assign=True)
        model.config.dtype = model.dtype
        model.name_or_path = str(pretrained_model_name_or_path)
        model = model.to(device or "cpu").eval()
        model.attach_asked(decoder, pretrained_model_name_or_path, folder, hub_options, dtype=target)
        return model

    @classmethod
    def from_whisper(
        cls,
        whisper: str | Path | nn.Module,
        *,
        quantize_position: int,
        codebook_size: int = 8192,
        pooling_kernel_size: int | None = 2,
        pooling_type: str = "avg",
        pooling_position: int = 0,
        use_sae: bool = True,
        sae_source_position: int | None = None,
        use_adapter: bool = True,
        use_gate: bool = True,
        ema_decay: float | None = 0.95,
        restart_interval: int | None = 10,
        loss_scale: float = 10.0,
        metric_size: int | None = None,
        encoder_only: bool = False,
        seed: int = 0,
        **config_values: Any,
    ) -> UniAudioTokenizer:
        """Puts the encoder of a Whisper model into a fresh tokenizer, ready for training.

        Convolutions, positions, layers and final norm are Whisper's. New are the SAE (normal weights, zero biases, so
        that the gate starts at one half), the codebook (normal, with statistics that agree with it; see
        `fit_codebook` for a better start) and the positions added to codes (sinusoids).

        Args:
            whisper: a folder or Hub id of any Whisper model in transformers' layout, or the loaded model.
            quantize_position: layer behind which the quantizer sits; half the depth is usual.
            codebook_size: V.
            pooling_kernel_size: encoder frames per code (2: 25 codes per second); None for no pooling.
            pooling_type: ``"avg"`` or ``"max"``.
            pooling_position: 0 pools in front of the first layer, as the release does (cheapest);
                ``quantize_position`` pools right at the quantizer, so that the pretrained layers see what they were
                trained on.
            use_sae: add the SAE, fused in front of the quantizer.
            sae_source_position: its shallow layer; 3, or the layer before the quantizer if that comes earlier.
            use_adapter: see the configuration.
            use_gate: see the configuration.
            ema_decay: of the codebook; None trains it by gradient.
            restart_interval: updates between restarts of dead codes.
            loss_scale: weight of the quantizer loss.
            metric_size: dimensions in which distances to entries are measured once `fit_codebook` has been called;
                None: those of the features themselves, as the release does.
            encoder_only: leave out the layers behind the quantizer.
            seed: for the new weights; the global generator is left alone.
            config_values: further keys of `UniAudioTokenizerConfig`.

        Raises:
            ValueError: if ``whisper`` is no Whisper model or the positions do not fit its depth.
        """
        source = load_whisper(whisper)
        if use_sae and sae_source_position is None:
            sae_source_position = max(1, min(DEFAULT_SAE_SOURCE_POSITION, quantize_position - 1))
        config = UniAudioTokenizerConfig(
            **settings_of_whisper(source.config)
            | {
                "pooling_kernel_size": pooling_kernel_size,
                "pooling_type": pooling_type,
                "pooling_position": pooling_position,
                "quantize_vocab_size": codebook_size,
                "quantize_position": quantize_position,
                "quantize_ema_decay": ema_decay,
                "quantize_restart_interval": restart_interval,
                "quantize_loss_scale": loss_scale,
                "quantize_metric_size": metric_size,
                "quantize_encoder_only": encoder_only,
                "encoder_residual_source_position": sae_source_position if use_sae else None,
                "encoder_residual_target_position": quantize_position if use_sae else None,
                "use_residual_adapter": use_sae and use_adapter,
                "use_residual_gate": use_sae and use_gate,
                "licence_note": WHISPER_LICENCE_NOTE,
            }
            | config_values
        )
        with torch.random.fork_rng(devices=[]):  # so that the caller's own draws do not depend on this one
            torch.manual_seed(seed)
            model = cls(config)
        take_encoder_weights(model.encoder, source)
        return model.eval()

    @torch.no_grad()
    def fit_codebook(
        self,
        waveforms: Sequence[Tensor],
        sample_rate: int,
        *,
        num_passes: int = 6,
        batch_size: int = 16,
        seed: int = 0,
    ) -> CodebookFit:
        """Fits the codebook in place to what the encoder says of some recordings, by k-means.

        Args:
            waveforms: float in [-1, 1], ``[N_i]`` each; all features are held in memory (4 D bytes per 1/25 s).
            sample_rate: of all waveforms, in Hz.
            num_passes: k-means iterations.
            batch_size: 30 s segments encoded at once.
            seed: decides the frames that entries start on.

        Raises:
            ValueError: if the recordings give fewer frames than the codebook has entries.
        """
        encoded = self.encode(waveforms, sample_rate, batch_size=batch_size, return_features=True)
        assert encoded.features is not None
        return fit_entries(self.codebook, torch.cat(encoded.features).float(), num_passes=num_passes, seed=seed)


def _check_fingerprint(
    config: UniAudioTokenizerConfig, tensors: Mapping[str, Tensor], expected: str, folder: str | Path
) -> None:
    """Refuses a checkpoint that is neither in float32 nor as it is stored the one of that fingerprint."""
    found = ""
    for dtype in (torch.float32, None):
        found = tokenizer_fingerprint(config, {name: _cast(name, one, dtype) for name, one in tensors.items()})
        if found == expected:
            return
    raise ValueError(
        f"{folder} is another audio tokenizer (fingerprint {found[:12]}…) than the one whose codes are meant "
        f"({expected[:12]}…): put that one back"
    )


def _cast(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Casts a weight; the codebook stays float32, and integers what they are. None keeps the checkpoint's own dtype."""
    if not tensor.is_floating_point():
        return tensor
    if name.startswith("codebook."):
        return tensor.to(torch.float32)
    return tensor if dtype is None else tensor.to(dtype)


class _NoLanguageModel:
    """What `AutoModelForCausalLM` finds where an audio tokenizer lies: a word on what to do."""

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str, *_: Any, **__: Any) -> None:
        raise ValueError(
            f"{path_or_hub_id} is an audio tokenizer and no LLM: load it with AutoModelForAudioTokenization, or make "
            f"an Audio-LLM with AudioLLM.create(llm, audio_tokenizer={path_or_hub_id!r})"
        )


class _NoTextTokenizer:
    """What `AutoTokenizer` finds there."""

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str, *_: Any, **__: Any) -> None:
        raise ValueError(
            f"{path_or_hub_id} is an audio tokenizer and has no text tokenizer: load it with "
            "AutoModelForAudioTokenization, or an Audio-LLM's folder with AutoTokenizer"
        )


AutoModel.register(UniAudioTokenizerConfig, UniAudioTokenizer)
AutoTokenizer.register(UniAudioTokenizerConfig, tokenizer_class=_NoTextTokenizer)
AutoModelForAudioTokenization.register(UniAudioTokenizerConfig, UniAudioTokenizer)
AutoModelForCausalLM.register(UniAudioTokenizerConfig, _NoLanguageModel)
