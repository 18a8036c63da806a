"""What a waveform decoder takes: codes, speakers, prompts, noise, settings; checked and brought into one form."""
# Shapes: B rows, T codes, S size of a speaker vector, P prompt codes, Q prompt mel frames, C mel bins.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from audiollm.tokenizer.base import Codes
from audiollm.tokenizer.quantizer.codebook import check_codes

from .configuration import FlowConfig, WaveformDecoderConfig
from .flow.solvers import Integration, Solver

DEFAULT_SEED = 42  # of the published decoder
Quality = Literal["exact", "fast"]
FAST = Integration(evaluations=4, guidance=0.7)
"""Of quality ``fast``; strength of guidance and schedule are the checkpoint's. docs/decoder.md says why."""
MAX_PROMPT_MISFIT_SECONDS = 0.5
"""By how much the durations of a prompt's codes and mel may differ; streams that hold frames back differ a little."""


@dataclass(frozen=True)
class VoicePrompt:
    """A recording to go on from: its voice and manner carry over (zero-shot). See ``WaveformDecoder.prompt``.

    Args:
        codes: of the recording, int64 ``[P]``, or ``[B, P]`` for one recording per row.
        mel: its log-mel at the decoder's settings, float ``[C, Q]`` or ``[B, C, Q]``.
    """

    codes: Tensor
    mel: Tensor

    def __getitem__(self, rows: list[int]) -> VoicePrompt:
        """The prompts of some rows."""
        return VoicePrompt(self.codes[rows], self.mel[rows])


@dataclass(frozen=True)
class FlowSettings:
    """How the flow model computes.

    Args:
        steps: evaluations of the network; fewer are faster and coarser. None: those of the quality.
        guidance: strength of classifier-free guidance; None: the checkpoint's own.
        seed: of each row's noise.
        quality: what is not given. ``exact``: as published, the checkpoint's own number of Euler steps; ``fast``: the
            fewest evaluations that sounded as good in docs/decoder.md, where the checkpoint has more steps than that.
        solver: see `flow.solvers`; None: that of the quality, or Euler's where ``steps`` are given.

    Raises:
        ValueError: for settings that make no sense.
    """

    steps: int | None = None
    guidance: float | None = None
    seed: int = DEFAULT_SEED
    quality: Quality = "exact"
    solver: Solver | None = None

    def __post_init__(self) -> None:
        if self.quality not in get_args(Quality):
            raise ValueError(f"quality={self.quality!r} is unknown: use {' or '.join(get_args(Quality))}")
        check_seed(self.seed)
        self.integration(FlowConfig())  # refuses what fits no checkpoint, before one is asked

    def integration(self, config: FlowConfig) -> Integration:
        """How a checkpoint's flow is integrated under these settings.

        Raises:
            ValueError: if the solver cannot do with the checkpoint's number of evaluations.
        """
        guidance = config.guidance if self.guidance is None else self.guidance
        is_given = self.steps is not None or self.solver is not None
        if self.quality == "fast" and not is_given and config.steps > FAST.evaluations:
            return replace(FAST, guidance=guidance, sway=config.sway)
        steps = config.steps if self.steps is None else self.steps
        return Integration(steps, guidance, self.solver or "euler", config.sway)


@dataclass(frozen=True)
class DecoderInputs:
    """What a batch of rows is decoded from.

    Args:
        rows: codes of each row, int64 ``[T_i]`` on the CPU, each maybe empty.
        speakers: speaker vectors, float32 ``[B, S]``; None: neutral.
        prompts: a recording to go on from per row, with codes ``[B, P]`` and mel ``[B, C, Q]``; None: none.
    """

    rows: list[Tensor]
    speakers: Tensor | None = None
    prompts: VoicePrompt | None = None

    @classmethod
    def from_arguments(
        cls,
        config: WaveformDecoderConfig,
        codes: Codes | Tensor | Sequence[Any],
        lengths: Tensor | Sequence[int] | None = None,
        speaker: Tensor | None = None,
        prompt: VoicePrompt | tuple[Tensor, Tensor] | None = None,
    ) -> DecoderInputs:
        """Checks what a caller gave; see `as_code_rows`, `as_speakers` and `as_prompt`.

        Args:
            config: of the decoder.
            codes: in any of the accepted forms.
            lengths: valid codes of each row of a tensor; None: all.
            speaker: one vector for all rows, or one per row.
            prompt: one recording for all rows, or one per row.

        Raises:
            ValueError: as those.
        """
        rows = as_code_rows(codes, lengths, config.flow.codebook_size)
        speakers = as_speakers(speaker, len(rows), config.flow.speaker_size)
        return cls(rows, speakers, as_prompt(prompt, len(rows), config))

    def __getitem__(self, indices: list[int]) -> DecoderInputs:
        """The inputs of some rows."""
        return DecoderInputs(
            [self.rows[index] for index in indices],
            None if self.speakers is None else self.speakers[indices],
            None if self.prompts is None else self.prompts[indices],
        )

    @property
    def num_prompt_codes(self) -> int:
        """P: codes of the prompt in front of each row."""
        return 0 if self.prompts is None else self.prompts.codes.shape[-1]


def as_code_rows(
    codes: Codes | Tensor | Sequence[Any], lengths: Tensor | Sequence[int] | None, codebook_size: int
) -> list[Tensor]:
    """Takes codes apart into one row per clip, without padding.

    Args:
        codes: a batch of `Codes`; a tensor ``[T]``, ``[B, T]`` or ``[B, 1, T]``; or a list of tensors or lists,
            one per clip, ``[T_i]`` or ``[1, T_i]``.
        lengths: valid codes of each row of a tensor; what lies behind may be anything. None: all.
        codebook_size: codes must be in [0, codebook_size).

    Returns:
        int64 ``[T_i]`` on the CPU, each maybe empty.

    Raises:
        ValueError: for codes that are no integers, out of range, or of another shape, and lengths that do not fit.
    """
    if isinstance(codes, Codes):
        if lengths is not None:
            raise ValueError("lengths are given twice: Codes have their own")
        lengths, codes = codes.lengths, codes.codes
    if isinstance(codes, Tensor):
        rows = list(_without_codebook_axis(codes[None] if codes.dim() == 1 else codes, "codes"))
    elif isinstance(codes, Sequence) and not isinstance(codes, str):
        if lengths is not None:
            raise ValueError("lengths belong to a tensor of codes; a list of clips has none")
        if codes and all(isinstance(code, int) and not isinstance(code, bool) for code in codes):
            codes = [codes]  # one clip as plain numbers
        rows = [_as_clip(clip, index) for index, clip in enumerate(codes)]
    else:
        raise ValueError(f"codes are a {type(codes).__name__}; pass a tensor [B, T], Codes, or a list of clips")
    if lengths is not None:
        rows = [row[:length] for row, length in zip(rows, _as_lengths(lengths, rows), strict=True)]
    for row in rows:
        check_codes(row, codebook_size)
    return [row.to("cpu", torch.int64) for row in rows]


def _without_codebook_axis(codes: Tensor, name: str) -> Tensor:
    if codes.dim() == 3 and codes.shape[1] != 1:
        raise ValueError(f"{name} have shape {list(codes.shape)}: this decoder knows one codebook, so pass [B, 1, T]")
    if codes.dim() not in (2, 3):
        raise ValueError(f"{name} have shape {list(codes.shape)}; pass [T], [B, T] or [B, 1, T]")
    return codes.reshape(len(codes), codes.shape[-1])


def _as_clip(clip: Any, index: int) -> Tensor:
    if not isinstance(clip, Tensor):
        if not isinstance(clip, Sequence) or not all(type(code) is int for code in clip):
            raise ValueError(f"clip {index} is {str(clip)[:60]!r}; pass int64 codes")
        clip = torch.tensor(clip, dtype=torch.int64)
    if clip.dim() == 2 and len(clip) == 1:
        clip = clip[0]
    if clip.dim() != 1:
        raise ValueError(f"clip {index} has codes of shape {list(clip.shape)}; pass [T] or [1, T]")
    return clip if clip.numel() else clip.to(torch.int64)


def _as_lengths(lengths: Tensor | Sequence[int], rows: list[Tensor]) -> list[int]:
    values = [int(length) for length in lengths]
    longest = max((len(row) for row in rows), default=0)
    if len(values) != len(rows) or any(not 0 <= value <= longest for value in values):
        raise ValueError(f"lengths={values} do not fit {len(rows)} rows of {longest} codes")
    return values


def as_speakers(speaker: Any, batch_size: int, size: int) -> Tensor | None:
    """Checks speaker vectors ``[S]``, ``[1, S]`` or ``[B, S]``; one is taken for all rows.

    Returns:
        float32 ``[B, S]``, or None for None, the neutral voice.

    Raises:
        ValueError: for another size or number, or a value that is NaN or infinite.
    """
    if speaker is None:
        return None
    vectors = torch.as_tensor(speaker).detach()
    if not vectors.is_floating_point():
        raise ValueError(f"speaker vectors are {vectors.dtype}; pass floats")
    rows = vectors[None] if vectors.dim() == 1 else vectors
    if rows.dim() != 2 or rows.shape[1] != size or len(rows) not in (1, batch_size):
        raise ValueError(
            f"speaker has shape {list(vectors.shape)}; this decoder takes vectors of {size} numbers: [{size}] or "
            f"[{batch_size}, {size}]"
        )
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("speaker holds NaN or infinity; was it computed from an empty recording?")
    return rows.float().expand(batch_size, -1)


def as_prompt(
    prompt: VoicePrompt | tuple[Tensor, Tensor] | None, batch_size: int, config: WaveformDecoderConfig
) -> VoicePrompt | None:
    """Checks a prompt; one recording is taken for all rows.

    Args:
        prompt: a `VoicePrompt` or the pair of its codes and mel, the latter also as ``[1, Q, C]``.
        batch_size: B.
        config: of the decoder.

    Returns:
        With codes ``[B, P]`` and mel ``[B, C, Q]`` in float32; None if there is no prompt or it is empty.

    Raises:
        ValueError: if codes and mel do not fit each other, the rows, or the decoder.
    """
    num_mels, frame_rate = config.mel.num_mels, config.flow.frame_rate
    if prompt is None:
        return None
    if isinstance(prompt, tuple) and len(prompt) == 2:
        prompt = VoicePrompt(*prompt)
    if not isinstance(prompt, VoicePrompt) or not all(isinstance(part, Tensor) for part in (prompt.codes, prompt.mel)):
        raise ValueError("prompt must be a VoicePrompt, or a tuple of its codes [1, P] and its mel [1, C, Q]")
    codes = prompt.codes[None] if prompt.codes.dim() == 1 else prompt.codes
    codes = _without_codebook_axis(codes, "prompt codes")
    mel = prompt.mel[None] if prompt.mel.dim() == 2 else prompt.mel
    if mel.dim() == 3 and mel.shape[1] != num_mels and mel.shape[2] == num_mels:
        mel = mel.transpose(1, 2)
    if mel.dim() != 3 or mel.shape[1] != num_mels or not mel.is_floating_point():
        raise ValueError(f"prompt mel is {mel.dtype} {list(prompt.mel.shape)}; pass floats [{num_mels}, Q]")
    if len(codes) != len(mel) or len(codes) not in (1, batch_size):
        raise ValueError(f"prompt has {len(codes)} rows of codes and {len(mel)} of mel for {batch_size} rows")
    if codes.numel() == 0 and mel.numel() == 0:
        return None
    check_codes(codes, config.flow.codebook_size)
    if not bool(torch.isfinite(mel).all()):
        raise ValueError("prompt mel holds NaN or infinity")
    frames_per_code = config.mel.frame_rate / frame_rate
    misfit_codes = abs(mel.shape[2] / frames_per_code - codes.shape[1])
    if codes.shape[1] == 0 or mel.shape[2] == 0 or misfit_codes > MAX_PROMPT_MISFIT_SECONDS * frame_rate:
        raise ValueError(
            f"prompt has {codes.shape[1]} codes ({codes.shape[1] / frame_rate:.2f} s) but {mel.shape[2]} mel frames "
            f"({mel.shape[2] / frames_per_code / frame_rate:.2f} s); both must come from the same recording"
        )
    return VoicePrompt(codes.to(torch.int64).expand(batch_size, -1), mel.detach().float().expand(batch_size, -1, -1))


def as_mel(mel: Tensor, num_mels: int) -> Tensor:
    """Checks a log-mel ``[B, C, M]`` or ``[C, M]`` and returns it as float32 ``[B, C, M]``."""
    rows = mel[None] if mel.dim() == 2 else mel
    if rows.dim() != 3 or rows.shape[1] != num_mels or rows.shape[2] == 0 or not rows.is_floating_point():
        raise ValueError(f"mel is {mel.dtype} {list(mel.shape)}; pass floats [B, {num_mels}, M] of at least one frame")
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("mel holds NaN or infinity")
    return rows.detach().float()


def as_noise(noise: Tensor | None, batch_size: int, num_mels: int, num_frames: Sequence[int]) -> list[Tensor] | None:
    """Takes injected noise ``[B, C, M]`` or ``[C, M]`` apart into rows ``[C, M_i]``.

    Raises:
        ValueError: if it has not the width of the longest row (with its prompt), or holds NaN or infinity.
    """
    if noise is None:
        return None
    rows = noise[None] if noise.dim() == 2 else noise
    expected = [batch_size, num_mels, max(num_frames)]
    if list(rows.shape) != expected or not rows.is_floating_point():
        raise ValueError(f"noise is {noise.dtype} {list(noise.shape)}; these codes (with their prompt) need {expected}")
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("noise holds NaN or infinity")
    return [row[:, :frames].float() for row, frames in zip(rows, num_frames, strict=True)]


def as_source(source: Tensor | None, batch_size: int, num_samples: int) -> Tensor | None:
    """Checks an excitation ``[B, 1, N]``, ``[B, N]`` or ``[N]`` and returns it as float32 ``[B, 1, N]``.

    Raises:
        ValueError: if it is longer than the waveform, has another shape, or holds NaN or infinity.
    """
    if source is None:
        return None
    rows = source[None] if source.dim() == 1 else source
    rows = rows[:, None] if rows.dim() == 2 else rows
    if rows.dim() != 3 or rows.shape[:2] != (batch_size, 1) or rows.shape[2] > num_samples:
        raise ValueError(f"source has shape {list(source.shape)}; this mel needs [{batch_size}, 1, {num_samples}]")
    if not rows.is_floating_point() or not bool(torch.isfinite(rows).all()):
        raise ValueError(f"source is {rows.dtype} or holds NaN or infinity; pass finite floats")
    return rows.detach().float()


def check_seed(seed: int) -> None:
    """Raises ValueError unless the seed is a whole number that torch's generators take, and the next one is, too."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**64 - 1:
        raise ValueError(f"seed={seed!r}: use a whole number of 64 bits")
