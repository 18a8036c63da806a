"""Sizes and rates of a ReasoningCodec; the defaults are those of the released checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from audiollm.tokenizer.zoo.settings import require_few, require_some

SAMPLE_RATE = 24000
"""Hz, of what it hears and of what it makes."""
FRAME_SAMPLES = 960
"""Samples of a frame of its features, and of the latents that it decodes to: 25 Hz."""
RECONSTRUCTION_FRAMES = 2
"""Frames of a reconstruction code."""
SPEECH_FRAMES = 2
"""Vectors that Whisper and WavLM give in the time of a frame: 50 Hz."""

REASONING, RECONSTRUCTION = "reasoning", "reconstruction"
GROUPS = (REASONING, RECONSTRUCTION)
BRANCHES = ("phone", "structure", "acoustic")
"""Of the reconstruction, in the order of their codes."""


@dataclass(frozen=True, kw_only=True)
class ReasoningCodecConfig:
    """Everything that makes the model, but for its frozen encoders and the SQCodec."""

    size: int = 768
    """Of the vectors that are quantized."""
    whisper_size: int = 1024
    wavlm_size: int = 768
    music_size: int = 1024
    """Of both streams of the music encoder."""
    latent_size: int = 136
    """Of the SQCodec's latents."""

    query_interval: int = 5
    """Frames of a reasoning code."""
    reasoning_layers: int = 5
    reasoning_head_size: int = 128
    reasoning_inner_size: int = 3072
    reasoning_quantizer: tuple[int, ...] = (8, 4096, 64)
    """Codebooks, entries of each, numbers of an entry; so are the others."""

    phone_quantizer: tuple[int, ...] = (1, 8192, 32)
    structure_quantizer: tuple[int, ...] = (1, 8192, 32)
    acoustic_quantizer: tuple[int, ...] = (6, 8192, 32)
    film: bool = True
    """Whether the reasoning codes move what the reconstruction quantizes, as published; else they are heard by the
    decoder alone."""

    dit_layers: int = 32
    dit_heads: int = 24
    dit_head_size: int = 64
    dit_inner_size: int = 6144
    dit_positions: int = 3000
    """Most frames at once."""
    dit_time_size: int = 512
    """Cosines and sines of the time."""

    group: str = "both"
    """Which codes are given: of one group, or both."""
    encoder_only: bool = False
    """Whether there is no decoder."""
    trained_stage: str = ""
    """The last stage of its training that it has been through; empty: none."""

    def __post_init__(self) -> None:
        require_some(
            self, "size", "whisper_size", "wavlm_size", "music_size", "latent_size", "query_interval",
            "reasoning_head_size", "reasoning_inner_size", "dit_heads", "dit_head_size", "dit_inner_size",
            "dit_positions", "dit_time_size",
        )  # fmt: skip
        require_few(self, "reasoning_layers", "dit_layers", "query_interval")
        if self.size % self.reasoning_head_size:
            raise ValueError(f"reasoning_head_size={self.reasoning_head_size} does not divide size={self.size}")
        if self.rotary_channels > self.reasoning_head_size or self.rotary_channels % 2:
            raise ValueError(
                f"reasoning_head_size={self.reasoning_head_size}: give 32 or more, a multiple of 4 from 64 on"
            )
        if self.dit_time_size % 2:
            raise ValueError(f"dit_time_size={self.dit_time_size}: give an even number")
        if self.group not in ("both", *GROUPS):
            raise ValueError(f"group={self.group!r}: choose both, {' or '.join(GROUPS)}")
        for name in (REASONING, *BRANCHES):
            sizes = getattr(self, f"{name}_quantizer")
            if len(sizes) != 3 or sizes[0] > 100:
                raise ValueError(
                    f"{name}_quantizer={list(sizes)}: give codebooks (100 or fewer), entries of each, and their size"
                )

    @property
    def rotary_channels(self) -> int:
        """Channels of a head of the reasoning branch that are turned by their place."""
        return max(self.reasoning_head_size // 2, 32)

    @property
    def dit_size(self) -> int:
        """Of the vectors of the flow's transformer."""
        return self.dit_heads * self.dit_head_size

    @property
    def dit_input_size(self) -> int:
        """What it sees of a frame: where the flow is, what is given, and the condition."""
        return 2 * self.latent_size + self.size

    @property
    def reasoning_samples(self) -> int:
        """Samples of a reasoning code."""
        return FRAME_SAMPLES * self.query_interval

    @property
    def reconstruction_samples(self) -> int:
        """Samples of a reconstruction code."""
        return FRAME_SAMPLES * RECONSTRUCTION_FRAMES

    @property
    def whole_samples(self) -> int:
        """Samples after which both groups have whole codes again: 0.4 s."""
        common = self.reasoning_samples * RECONSTRUCTION_FRAMES
        return common // 2 if self.query_interval % 2 == 0 else common

    def quantizer_sizes(self, name: str) -> tuple[int, int, int]:
        """Codebooks, entries of each and numbers of an entry, of the reasoning or a branch."""
        count, size, code_size = getattr(self, f"{name}_quantizer")
        return count, size, code_size

    def group_sizes(self, group: str) -> tuple[int, ...]:
        """Entries of each codebook of a group, in the order of its codes."""
        names = (REASONING,) if group == REASONING else BRANCHES
        quantizers = [self.quantizer_sizes(name) for name in names]
        return tuple(size for count, size, _ in quantizers for _ in range(count))
