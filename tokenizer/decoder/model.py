"""Codes to sound: the flow model makes a mel spectrogram of the codes, the vocoder a waveform of the mel.

UniAudio-Token, GLM-4-Voice and CosyVoice checkpoints share it. Reading order: `WaveformDecoder.mel` here,
``batching.py``, then ``flow/`` and ``vocoder/``; ``streaming/`` decodes codes as they come.
"""
# Shapes: B rows, T codes, C mel bins, M mel frames, N samples, S size of a speaker vector.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from audiollm.tokenizer.base import Codes
from audiollm.tokenizer.checkpoints.fingerprint import decoder_fingerprint
from audiollm.tokenizer.checkpoints.hub import push_saved
from audiollm.tokenizer.checkpoints.tensors import torch_dtype
from audiollm.tokenizer.decoder.checkpoints.files import (
    find_decoder,
    read_decoder_config,
    read_decoder_tensors,
    write_decoder,
)
from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.tokenizer.decoder.flow.solvers import Solver
from audiollm.tokenizer.decoder.streaming.decoder import StreamingDecoder
from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder
from audiollm.tokenizer.int8 import round_once
from audiollm.tokenizer.signal.mel import MelSpectrogram
from audiollm.tokenizer.signal.resampling import resample

from .batching import make_mels, num_flow_frames, pad_mels
from .configuration import WaveformDecoderConfig
from .inputs import (
    DEFAULT_SEED,
    DecoderInputs,
    FlowSettings,
    Quality,
    VoicePrompt,
    as_code_rows,
    as_mel,
    as_noise,
    as_prompt,
    as_source,
    check_seed,
)


class WaveformDecoder(nn.Module):
    """Turns codes into waveforms.

    Args:
        config: the architecture.

    Attributes:
        qualities: what `decode` takes as ``quality``.

    The weights come from `from_pretrained`; a decoder is always in evaluation mode after loading. For the same
    seed the result is the same: in any batch, and up to rounding on any device, since all draws are made on the CPU.
    """

    qualities: ClassVar[tuple[str, ...]] = get_args(Quality)

    def __init__(self, config: WaveformDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.flow = FlowModel(config.flow, config.mel)
        self.vocoder = HiFTVocoder(config.vocoder)
        self._int8_fingerprint: str | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        **hub_options: Any,
    ) -> WaveformDecoder:
        """Loads a decoder in the released layout or in our own.

        Nothing in the files is executed: tags of ``config.yaml`` go through a closed list, and ``flow.pt`` and
        ``hift.pt`` are read as tensors only.

        Args:
            source: a folder that holds ``config.yaml``, ``flow.pt`` and ``hift.pt`` (or ``.safetensors``), or what
                `save_pretrained` wrote; one with such a folder ``decoder/``; or a Hub id.
            dtype: of the computation; float32 if None. Pitch and excitation are float32 always.
            device: where to put it; the CPU if None.
            hub_options: ``revision``, ``cache_dir``, ``token``, ``local_files_only`` and ``force_download``.

        Raises:
            ValueError: if there is no decoder, a file is damaged or holds code, or sizes and tensors do not fit; the
                message names the file and what is wrong in it.
        """
        decoder = read_decoder(find_decoder(source, **hub_options))
        return decoder.prepare(torch_dtype(dtype) or torch.float32).to(device or "cpu").eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes ``config.json`` and ``model.safetensors``."""
        write_decoder(self.config, self.state_dict(), folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads what `save_pretrained` writes, and a basic card.

        Args:
            repo_id: ``owner/name``, or a name under the token's owner; the repository is made if it is not there.
            options: ``token``, ``revision``, ``tags``, ``private``, ``commit_message`` …: see
                `push_files`.

        Returns:
            The address of the repository.

        Raises:
            ValueError: without a token, or where the Hub refuses.
        """
        return push_saved(self.save_pretrained, repo_id, "decoder", **options)

    def fingerprint(self) -> str:
        """Returns a SHA-256 over everything that decides the sound of given codes, the seed aside."""
        return self._int8_fingerprint or decoder_fingerprint(self.config.to_dict(), self.state_dict())

    def prepare(self, dtype: torch.dtype = torch.float32) -> WaveformDecoder:
        """Makes decoding fast, in place: folds the weight normalization and casts what tolerates it."""
        self.vocoder.fold_weight_norm().cast_filter(dtype)
        self.flow.to(dtype)
        return self

    def to_int8(self) -> WaveformDecoder:
        """Computes the linear layers of the flow model in 8-bit integers from now on, in place, on processors alone.

        It can no longer be saved.

        Raises:
            ValueError: if this machine cannot, or the decoder is on a GPU.
        """
        round_once(self, self.flow)
        return self

    # ------------------------------------------------------------------ facts

    @property
    def codebook_size(self) -> int:
        """V: codes are in [0, V)."""
        return self.config.flow.codebook_size

    @property
    def frame_rate(self) -> float:
        """Codes per second, in Hz."""
        return self.config.flow.frame_rate

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.config.mel.sample_rate

    @property
    def speaker_size(self) -> int:
        """S: length of a speaker vector."""
        return self.config.flow.speaker_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.flow.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the flow model."""
        return self.flow.dtype

    def num_samples(self, num_codes: int) -> int:
        """Counts the samples that a row of codes gives without a prompt."""
        return self.flow.num_mel_frames(num_codes) * self.config.mel.hop_length

    # --------------------------------------------------------------- decoding

    @torch.no_grad()
    def decode(
        self,
        codes: Codes | Tensor | Sequence[Any],
        speaker: Tensor | None = None,
        prompt: VoicePrompt | tuple[Tensor, Tensor] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = DEFAULT_SEED,
        quality: Quality = "exact",
        solver: Solver | None = None,
    ) -> list[Tensor]:
        """Turns codes into waveforms; each is what the row would get alone.

        Rows longer than a minute are computed in windows of half a minute, each going on from the last seconds of the
        one before, so memory and time per second stay bounded.

        Args:
            codes: as `Codes`, ``[T]``, ``[B, T]``, ``[B, 1, T]``, or a list of ``[T_i]``.
            speaker: speaker vectors ``[S]`` (for all rows) or ``[B, S]``; None: neutral, as zeros.
            prompt: a recording to go on from, see `prompt`.
            steps: evaluations of the flow's network, Euler's steps; fewer are faster and coarser. None: those of the
                quality.
            guidance: strength of classifier-free guidance; None: the checkpoint's own.
            seed: of each row's noise.
            quality: of what is not given. ``exact``: as published, the checkpoint's own number of Euler steps;
                ``fast``: fewer evaluations, see `FlowSettings`.
            solver: ``euler``, ``midpoint``, ``heun``, ``multistep`` or ``dpm``.

        Returns:
            One float32 waveform ``[N_i]`` at `sample_rate` per row, on the CPU; empty for a row without codes.

        Raises:
            ValueError: for codes that are out of range or no integers, a speaker vector of the wrong size or with NaN,
                a prompt that does not fit, or settings that make no sense.
        """
        settings = FlowSettings(steps, guidance, seed, quality, solver)
        inputs = DecoderInputs.from_arguments(self.config, codes, None, speaker, prompt)
        waveforms = [torch.zeros(0)] * len(inputs.rows)
        for indices, mels, generators in make_mels(self.flow, inputs, settings):
            for index, waveform in zip(indices, self._vocode_all(mels, generators), strict=True):
                waveforms[index] = waveform
        return waveforms

    def _vocode_all(self, mels: list[Tensor], generators: list[torch.Generator]) -> Iterator[Tensor]:
        """Makes the waveform ``[N_i]`` of each mel ``[C, M_i]``, on the CPU."""
        if self.device.type == "cpu":  # a batch of such wide layers saves nothing there, and padding costs
            for mel, generator in zip(mels, generators, strict=True):
                yield self.vocoder(mel[None], generator=[generator])[0]
            return
        lengths = [mel.shape[1] for mel in mels]
        made = self.vocoder(pad_mels(mels), lengths, generator=generators).cpu()
        for waveform, length in zip(made, lengths, strict=True):
            # A copy: a view of a short row would keep its whole batch in memory.
            yield waveform[: length * self.config.mel.hop_length].clone()

    def decode_stream(
        self,
        codes: Iterable[Tensor],
        speaker: Tensor | None = None,
        prompt: VoicePrompt | tuple[Tensor, Tensor] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = DEFAULT_SEED,
        quality: Quality = "exact",
        solver: Solver | None = None,
        **options: Any,
    ) -> Iterator[Tensor]:
        """Decodes codes as they come.

        Args:
            codes: consecutive pieces of one clip, int64 ``[n]`` each, of any lengths; or all of it as one tensor.
            speaker: one speaker vector ``[S]``.
            prompt: as for `decode`.
            steps: as for `decode`.
            guidance: as for `decode`.
            seed: as for `decode`.
            quality: as for `decode`.
            solver: as for `decode`.
            options: see `StreamingDecoder`.

        Yields:
            float32 ``[n]`` on the CPU, as soon as enough codes are there; together as long as `decode` gives.

        Raises:
            ValueError: as `decode`; for codes, when the stream comes to the bad piece.
        """
        stream = StreamingDecoder(
            self,
            speaker=speaker,
            prompt=prompt,
            steps=steps,
            guidance=guidance,
            seed=seed,
            quality=quality,
            solver=solver,
            **options,
        )
        if isinstance(codes, Codes | Tensor):
            rows = as_code_rows(codes, None, self.codebook_size)
            if len(rows) != 1:
                raise ValueError(f"a stream is one clip, but there are {len(rows)}; make one stream for each")
            codes = rows
        return self._stream(stream, codes)

    def _stream(self, stream: StreamingDecoder, codes: Iterable[Tensor]) -> Iterator[Tensor]:
        for part in codes:
            values = torch.as_tensor(part)
            waveform = stream.push(values.reshape(-1) if values.shape[:-1].numel() == 1 else values)
            if waveform.numel():
                yield waveform
        waveform = stream.finish()
        if waveform.numel():
            yield waveform

    @torch.no_grad()
    def mel(
        self,
        codes: Codes | Tensor | Sequence[Any],
        lengths: Tensor | Sequence[int] | None = None,
        speaker: Tensor | None = None,
        prompt: VoicePrompt | tuple[Tensor, Tensor] | None = None,
        noise: Tensor | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = DEFAULT_SEED,
        quality: Quality = "exact",
        solver: Solver | None = None,
    ) -> Tensor:
        """Makes the log-mel of codes, the first half of `decode`.

        Args:
            codes: as for `decode`, at least one per row.
            lengths: valid codes of each row of a tensor; None: all.
            speaker: as for `decode`.
            prompt: as for `decode`; its frames are not returned.
            noise: where the flow starts, ``[B, C, M]``, M counting the prompt's frames too; drawn if None.
            steps: as for `decode`.
            guidance: as for `decode`.
            seed: of each row's noise.
            quality: as for `decode`.
            solver: as for `decode`.

        Returns:
            float32 ``[B, C, M]`` on the decoder's device, 0 behind the end of shorter rows.

        Raises:
            ValueError: as `decode`, and for a row without codes or noise of another shape.
        """
        settings = FlowSettings(steps, guidance, seed, quality, solver)
        inputs = DecoderInputs.from_arguments(self.config, codes, lengths, speaker, prompt)
        if not inputs.rows or min(len(row) for row in inputs.rows) == 0:
            raise ValueError("a row without codes has no mel; leave it out")
        noises = as_noise(noise, len(inputs.rows), self.config.mel.num_mels, num_flow_frames(self.flow, inputs))
        mels: list[Tensor] = [torch.zeros(0)] * len(inputs.rows)
        for indices, made, _ in make_mels(self.flow, inputs, settings, noises):
            for index, mel in zip(indices, made, strict=True):
                mels[index] = mel
        return pad_mels(mels)

    @torch.no_grad()
    def vocode(
        self,
        mel: Tensor,
        source: Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        seed: int = DEFAULT_SEED,
    ) -> Tensor:
        """Makes waveforms of log-mels, the second half of `decode` (with draws of its own).

        Args:
            mel: ``[B, C, M]``.
            source: excitation ``[B, 1, N]`` or ``[B, N]`` in place of the one made from the predicted pitch; a shorter
                one replaces the first samples only. N is M times the hop length.
            lengths: valid frames of each row; None: all.
            seed: of each row's phase and noise.

        Returns:
            float32 ``[B, N]`` on the decoder's device, 0 behind the end of shorter rows.

        Raises:
            ValueError: if a shape does not fit, or a value is NaN or infinite.
        """
        check_seed(seed)
        mel = as_mel(mel, self.config.mel.num_mels).to(self.device)
        source = as_source(source, len(mel), mel.shape[2] * self.config.mel.hop_length)
        generators = [torch.Generator().manual_seed(seed) for _ in mel]
        waveforms: Tensor = self.vocoder(
            mel, lengths, source=None if source is None else source.to(self.device), generator=generators
        )
        return waveforms

    def prompt(self, waveform: Tensor, sample_rate: int, codes: Codes | Tensor) -> VoicePrompt:
        """Makes a prompt of a recording, for speech in its voice.

        Args:
            waveform: float ``[N]`` in [-1, 1], some seconds of clean speech.
            sample_rate: its rate in Hz.
            codes: what the tokenizer made of the same recording, ``[P]``, ``[1, P]`` or `Codes` of one clip.

        Returns:
            Codes and log-mel, cut to the same duration.

        Raises:
            ValueError: if there are no codes, or their duration is not the recording's.
        """
        rows = as_code_rows(codes, None, self.codebook_size)
        if len(rows) != 1 or waveform.dim() != 1 or not waveform.is_floating_point():
            raise ValueError(
                f"a prompt is one recording: pass a float waveform [N] (not {list(waveform.shape)}) and its codes "
                f"(not of {len(rows)} clips)"
            )
        resampled = resample(waveform.detach().cpu().float(), sample_rate, self.sample_rate)
        mel = MelSpectrogram(self.config.mel)(resampled)
        num_codes = len(rows[0])
        while num_codes and self.flow.num_mel_frames(num_codes) > mel.shape[1]:
            num_codes -= 1  # the last code may stand for samples behind the end
        as_prompt(VoicePrompt(rows[0], mel), 1, self.config)  # refuses codes of another recording
        return VoicePrompt(rows[0][:num_codes], mel[:, : self.flow.num_mel_frames(num_codes)])


def read_decoder(folder: Path) -> WaveformDecoder:
    """Builds the decoder of a folder, in float32 and with weight normalization, as it is trained.

    Raises:
        ValueError: as `WaveformDecoder.from_pretrained`.
    """
    config = read_decoder_config(folder)
    with torch.device("meta"):  # no memory and no random initialisation for weights about to be replaced
        decoder = WaveformDecoder(config)
    tensors = read_decoder_tensors(folder, decoder.state_dict())
    decoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return decoder.eval()


def convert_decoder(source: str | Path, output_dir: str | Path) -> Path:
    """Converts a released decoder to safetensors and JSON, in float32 and without changing a weight.

    Args:
        source: a folder or Hub id, as for `WaveformDecoder.from_pretrained`.
        output_dir: folder to write; made if need be.

    Returns:
        The folder written.

    Raises:
        ValueError: if the decoder cannot be loaded, or the folder belongs to another model.
    """
    read_decoder(find_decoder(source)).save_pretrained(output_dir)
    return Path(output_dir)
