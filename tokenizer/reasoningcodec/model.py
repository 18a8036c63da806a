"""`ReasoningCodec`: waveforms to codes of two rates, and back through flow matching and an SQCodec."""
# Shapes: B clips or windows, K codebooks, T reconstruction codes, R reasoning codes, F frames of 25 Hz, N samples,
# D feature size, L latent size.

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.base import CodeGroup, Codes, GroupedCodes
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.encoder.encoding import check_batch_size, in_evaluation
from audiollm.tokenizer.kinds import CONFIG, WEIGHTS, kind_named
from audiollm.tokenizer.signal.resampling import check_sample_rate, resample
from audiollm.tokenizer.signal.waveforms import check_waveforms
from audiollm.tokenizer.zoo.codec import CodecTokenizer, own_settings
from audiollm.tokenizer.zoo.settings import settings_as
from audiollm.tokenizer.zoo.sqcodec.configuration import SQCodecConfig
from audiollm.tokenizer.zoo.sqcodec.model import SQCodec

from .configuration import (
    FRAME_SAMPLES,
    GROUPS,
    REASONING,
    RECONSTRUCTION,
    SAMPLE_RATE,
    SPEECH_FRAMES,
    ReasoningCodecConfig,
)
from .encoders import (
    MUSIC,
    ROLES,
    WAVLM,
    WHISPER,
    FrozenEncoder,
    check_fits,
    checked_streams,
    encoder_of,
    load_encoder,
)
from .flow import LatentFlow
from .heads import FeatureHead
from .names import released_name
from .reasoning import ReasoningBranch
from .reconstruction import Heard, ReconstructionBranch
from .released import read_released
from .windows import (
    ENCODED_SECONDS,
    GIVEN_LATENTS,
    PUBLISHED_SAMPLES,
    DecodedWindow,
    cross_faded,
    decoded_windows,
    published_windows,
)

DECODING = ("heads.", "flow.", "sqcodec.")
"""How the names of weights begin that decide nothing about the codes; the first are for training alone."""
ENCODERS, SQCODEC = "encoders", "sqcodec"
"""Keys in a ``config.json``."""
STEPS = 10
GUIDANCE = 1.5
FILM_DROPOUT = 0.2
"""Share of the clips whose features the reasoning codes do not move in training."""
_WINDOW_SEEDS = 1_000_003
"""Between the seeds of a clip's windows."""


@dataclass
class _Clip:
    """A clip while it is decoded.

    Args:
        reasoning: its codes ``[K, R]``; None: they have no say.
        reconstruction: its codes ``[K, T]``.
        windows: in which it is decoded.
        latents: of the window before, ``[F, L]``.
        tail: sound of the window before that the next one shares, ``[N]``.
    """

    reasoning: Tensor | None
    reconstruction: Tensor
    windows: list[DecodedWindow]
    latents: Tensor | None = None
    tail: Tensor = field(default_factory=lambda: torch.zeros(0))


class ReasoningCodec(CodecTokenizer):
    """Codes of speech, music and all else in two groups: those to reason with, and those to reconstruct with.

    Opened with ``group="reasoning"`` or ``group="reconstruction"`` it is a tokenizer of that group alone, as others
    have one rate; with both, `encode` gives `GroupedCodes`. What needs one rate then says so.

    A clip is encoded in windows of 30 s, each by itself; decoded windows overlap by 7.6 s.
    """

    kind_name = "reasoningcodec"
    decoding = DECODING
    own_options = ("whisper", "wavlm", "music", "sqcodec", "group")
    read_options = ("variant",)
    training_only = ("recent_codes", "num_updates")  # the averages stay: without them, a training restarts all entries
    seconds_at_once = 2.0 * ENCODED_SECONDS

    def __init__(
        self,
        config: ReasoningCodecConfig,
        encoders: Mapping[str, FrozenEncoder] | None = None,
        sqcodec: SQCodec | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleDict()
        self.reasoning = ReasoningBranch(config)
        self.reconstruction = ReconstructionBranch(config)
        self.heads = nn.ModuleDict()
        self.flow: LatentFlow | None = None
        self.sqcodec: SQCodec | None = None
        if not config.encoder_only:
            self.heads["structure"] = FeatureHead(config.size, config.music_size, (1, 2))
            self.heads["phone"] = FeatureHead(config.size, config.wavlm_size, (2, 2))
            self.flow = LatentFlow(config)
        for role, encoder in (encoders or {}).items():
            self.attach_encoder(role, encoder)
        if sqcodec is not None:
            self.attach_sqcodec(sqcodec)

    def train(self, mode: bool = True) -> ReasoningCodec:
        """The frozen encoders and the SQCodec stay in evaluation mode."""
        super().train(mode)
        for module in (self.encoders, self.sqcodec):
            if module is not None:
                module.eval()
        return self

    # ------------------------------------------------------------------- parts

    def attach_encoder(self, role: str, encoder: FrozenEncoder) -> None:
        """Makes it hear by a frozen encoder.

        Args:
            role: ``whisper``, ``wavlm`` or ``music``.
            encoder: see `encoders.load_encoder`.

        Raises:
            ValueError: if it is of another rate or size, or for another role.
        """
        if role not in ROLES:
            raise ValueError(f"there is no {role} encoder; known are {', '.join(ROLES)}")
        size = getattr(self.config, f"{role}_size")
        self.encoders[role] = check_fits(role, encoder, size).requires_grad_(False).eval().to(self.device)
        self._fingerprint = None

    def detach_encoders(self) -> None:
        """Leaves it without frozen encoders: it decodes only."""
        self.encoders = nn.ModuleDict()
        self._fingerprint = None

    def attach_sqcodec(self, sqcodec: SQCodec) -> None:
        """Makes it speak through an SQCodec.

        Raises:
            ValueError: if its latents are others.
        """
        if self.config.encoder_only:
            raise ValueError("this ReasoningCodec was loaded without its decoder: an SQCodec would be of no use")
        found = (sqcodec.sample_rate, sqcodec.frame_samples, sqcodec.num_codebooks)
        wanted = (SAMPLE_RATE, FRAME_SAMPLES, self.config.latent_size)
        if found != wanted or not sqcodec.can_decode:
            raise ValueError(
                f"this SQCodec has {found[2]} numbers for every {found[1]} samples at {found[0]} Hz"
                f"{'' if sqcodec.can_decode else ' and no decoder'}; needed are {wanted[2]} for {wanted[1]} at "
                f"{wanted[0]} Hz"
            )
        self.sqcodec = sqcodec.requires_grad_(False).eval().to(self.device)

    def configure(  # type: ignore[override]  # the options of this kind
        self,
        whisper: FrozenEncoder | str | Path | None = None,
        wavlm: FrozenEncoder | str | Path | None = None,
        music: FrozenEncoder | str | Path | None = None,
        sqcodec: SQCodec | str | Path | None = None,
        group: str | None = None,
    ) -> None:
        """Plugs parts in, in place of those that the folder holds.

        Args:
            whisper: a frozen encoder, or a folder or Hub id of one of transformers.
            wavlm: as that.
            music: as that.
            sqcodec: one, or its folder or Hub id.
            group: which codes are given: ``both``, ``reasoning`` or ``reconstruction``.

        Raises:
            ValueError: if one is not there, or does not fit.
        """
        for role, source in ((WHISPER, whisper), (WAVLM, wavlm), (MUSIC, music)):
            if source is not None:
                self.attach_encoder(role, load_encoder(role, source))
        if sqcodec is not None:
            self.attach_sqcodec(sqcodec if isinstance(sqcodec, SQCodec) else SQCodec.from_pretrained(sqcodec))
        if group is not None:
            self.config = dataclasses.replace(self.config, group=group)
            self._fingerprint = None

    # ------------------------------------------------------------------- facts

    @property
    def group(self) -> str:
        """Which codes are given: ``both``, ``reasoning`` or ``reconstruction``."""
        return self.config.group

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups whose codes are given."""
        return GROUPS if self.group == "both" else (self.group,)

    @property
    def code_groups(self) -> tuple[CodeGroup, ...]:
        return tuple(
            CodeGroup(name, SAMPLE_RATE / self._code_samples(name), self.config.group_sizes(name))
            for name in self.groups
        )

    def _code_samples(self, group: str) -> int:
        return self.config.reasoning_samples if group == REASONING else self.config.reconstruction_samples

    @property
    def sample_rate(self) -> int:
        return SAMPLE_RATE

    @property
    def frame_samples(self) -> int:
        if self.group == "both":
            told = "; ".join(str(one) for one in self.code_groups)
            raise ValueError(
                f"this ReasoningCodec gives codes of two rates ({told}), so there is no one frame rate: open it with "
                "group='reasoning' or group='reconstruction' for what needs one"
            )
        return self._code_samples(self.group)

    @property
    def num_codebooks(self) -> int:
        return len(self.codebook_sizes)

    @property
    def codebook_size(self) -> int:
        return max(self.codebook_sizes)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return tuple(size for name in self.groups for size in self.config.group_sizes(name))

    @property
    def max_segment_seconds(self) -> float | None:
        return ENCODED_SECONDS

    @property
    def can_decode(self) -> bool:
        return self.sqcodec is not None and self.group != REASONING

    @property
    def why_no_sound(self) -> str:
        if self.group == REASONING:
            return "reasoning codes alone make no sound: open the codec with group='both'"
        if self.config.encoder_only:
            return "it was loaded without its decoder"
        return "it has no SQCodec: put sqcodec.pth and sqcodec_config.yaml into its folder, or give sqcodec="

    @property
    def can_encode_stream(self) -> bool:
        return self.group != "both"

    @property
    def dtype(self) -> torch.dtype:
        return self.reconstruction.adaptor.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.reconstruction.adaptor.weight.device

    def settings(self) -> dict[str, Any]:
        encoders = {
            role: {"kind": one.kind, **one.settings()}
            for role, one in self.encoders.items()
            if isinstance(one, FrozenEncoder)
        }
        sqcodec = None if self.sqcodec is None else self.sqcodec.settings()
        # As JSON holds it: lists in place of tuples.
        plain: dict[str, Any] = json.loads(json.dumps({**dataclasses.asdict(self.config), SQCODEC: sqcodec}))
        return {**plain, ENCODERS: encoders}

    def deciding_settings(self) -> dict[str, Any]:
        without = ("dit", "latent_size", "encoder_only", "trained_stage")
        plain = {name: one for name, one in dataclasses.asdict(self.config).items() if not name.startswith(without)}
        if plain["film"]:  # as published: codecs from before the setting keep their fingerprints
            del plain["film"]
        encoders = {role: one.deciding() for role, one in self.encoders.items() if isinstance(one, FrozenEncoder)}
        decisive: dict[str, Any] = json.loads(json.dumps({**plain, ENCODERS: encoders}, sort_keys=True))
        return decisive

    # ------------------------------------------------------------------ encode

    def hear(self, waveforms_BN: Tensor) -> Heard:
        """What the frozen encoders say of equally long waveforms at 24 kHz.

        Args:
            waveforms_BN: of whole reasoning codes, on the model's device.

        Raises:
            ValueError: if an encoder is missing, or gives something else than it should.
        """
        found = self._heard_by(ROLES, waveforms_BN)
        acoustic, semantic = found[MUSIC]
        return Heard(found[WHISPER][0], found[WAVLM][0], acoustic, semantic)

    def hear_for_reasoning(self, waveforms_BN: Tensor) -> tuple[Tensor, Tensor]:
        """What the reasoning branch takes of that, ``[B, S, D]`` of Whisper and ``[B, F, D]`` of the music encoder.

        Arguments and errors as for `hear`.
        """
        found = self._heard_by((WHISPER, MUSIC), waveforms_BN)
        return found[WHISPER][0], found[MUSIC][1]

    def _heard_by(self, roles: Sequence[str], waveforms_BN: Tensor) -> dict[str, list[Tensor]]:
        self.require_encoders()
        num_frames = waveforms_BN.shape[1] // FRAME_SAMPLES
        found: dict[str, list[Tensor]] = {}
        at_rate = {SAMPLE_RATE: waveforms_BN}
        for role in roles:
            encoder: Any = self.encoders[role]
            rate = encoder.sample_rate
            if rate not in at_rate:
                at_rate[rate] = torch.stack([resample(row, SAMPLE_RATE, rate) for row in waveforms_BN])
            num_vectors = num_frames * (1 if role == MUSIC else SPEECH_FRAMES)
            found[role] = [one.to(self.dtype) for one in checked_streams(role, encoder, at_rate[rate], num_vectors)]
        return found

    def require_encoders(self) -> None:
        """Refuses to hear by less than all of the frozen encoders.

        Raises:
            ValueError: naming those that are missing, and how to give them.
        """
        missing = [role for role in ROLES if role not in self.encoders]
        if missing:
            given = ", ".join(f"{role}=…" for role in missing)
            raise ValueError(
                f"this ReasoningCodec cannot encode without its {' and '.join(missing)} encoder: give from_pretrained "
                f"{given} (a folder or Hub id of an audio encoder of transformers, or a FrozenEncoder)"
            )

    def encode_heard(self, heard: Heard) -> dict[str, Tensor]:
        """The codes of both groups, int64 ``[B, K, R]`` and ``[B, K, T]``.

        The reasoning codes move the features of every clip, unless the codec was made without (``film``); only a
        training leaves some as they are (`FILM_DROPOUT`).
        """
        reasoning_BKR = self.reasoning.quantizer.encode(self.reasoning(heard.whisper, heard.semantic))
        if self.group == REASONING:
            return {REASONING: reasoning_BKR}
        features = self.reconstruction.features(heard)
        num_codes = features["phone"].shape[1]
        said_BRD = self.reasoning.quantizer.decode(reasoning_BKR).to(self.dtype)
        influence_BTD = self.reconstruction.influence(said_BRD, self.reconstruction.tokens_of(0, num_codes))
        moved = self.reconstruction.moved(features, influence_BTD)
        return {REASONING: reasoning_BKR, RECONSTRUCTION: self.reconstruction.encode(moved)}

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        raise NotImplementedError("codes of two rates are no one tensor")

    def _encode_rows(self, waveforms_BN: Tensor) -> tuple[Tensor, ...]:
        made = self.encode_heard(self.hear(waveforms_BN))
        return tuple(made[name] for name in self.groups)

    @torch.no_grad()
    def encode(  # type: ignore[override]  # two groups of codes, unless opened with one
        self,
        waveforms: Sequence[Tensor] | Tensor,
        sample_rate: int,
        *,
        batch_size: int = 16,
        return_features: bool = False,
        published_windows: bool = False,
    ) -> Codes | GroupedCodes:
        """Turns waveforms into codes; each clip's are what it would get alone.

        Args:
            waveforms: float in [-1, 1], mono: a list of ``[N_i]``, one ``[N]``, or ``[B, N]``.
            sample_rate: of all waveforms, in Hz; resampled where needed.
            batch_size: most windows computed at once; only equally long ones are.
            return_features: False: there are none.
            published_windows: cut as the published code does, for its very codes, see `windows.PublishedWindows`.

        Returns:
            Codes on the CPU of both groups, or of the one that it was opened with. The last code of a clip is of what
            is left of it, and silence: no clip is too short, and an empty one has no codes.

        Raises:
            ValueError: if a frozen encoder is missing or gives something else than it should, a waveform is not a float
                vector or holds NaN or infinity (naming the clip), or the sample rate makes no sense.
        """
        self.require_encoders()
        if return_features:
            raise ValueError(f"{self.own_kind.title} gives no features; leave out return_features")
        clips = check_waveforms(waveforms)
        check_batch_size(batch_size)
        if check_sample_rate(sample_rate) != SAMPLE_RATE:
            clips = [resample(clip.to(self.device), sample_rate, SAMPLE_RATE) if len(clip) else clip for clip in clips]
        cut = _cut_as_published if published_windows else self._cut_whole
        windows = [(index, part) for index, clip in enumerate(clips) if len(clip) for part in cut(clip)]
        model = in_evaluation(self)
        parts = self._in_equal_batches(
            model._encode_rows, [part for _, part in windows], batch_size, float(SAMPLE_RATE)
        )
        made: dict[str, Codes] = {}
        for place, name in enumerate(self.groups):
            sizes = self.config.group_sizes(name)
            own: list[list[Tensor]] = [[torch.zeros(len(sizes), 0, dtype=torch.int64)] for _ in clips]
            for (index, _), part in zip(windows, parts, strict=True):
                own[index].append(part[place])
            rows = []
            for clip, pieces in zip(clips, own, strict=True):
                rows.append(torch.cat(pieces, dim=1)[:, : self._count(name, len(clip), published_windows)])
            made[name] = Codes.from_list(rows, num_codebooks=len(sizes))
        return GroupedCodes(made) if self.group == "both" else made[self.group]

    def _cut_whole(self, clip_N: Tensor) -> Iterator[Tensor]:
        """Windows of 30 s, the last one filled with silence to whole codes."""
        window = ENCODED_SECONDS * SAMPLE_RATE // self.config.whole_samples * self.config.whole_samples
        for part in clip_N.split(window):
            missing = -len(part) % self.config.whole_samples
            yield F.pad(part, (0, missing)) if missing else part  # padding by nothing would copy the recording

    def _count(self, group: str, num_samples: int, is_published: bool = False) -> int:
        """Codes of a group that a clip at 24 kHz has."""
        if is_published and num_samples:
            plan = published_windows(num_samples)
            return plan.reasoning_codes if group == REASONING else plan.reconstruction_codes
        return -(-num_samples // self._code_samples(group))

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        """As `AudioTokenizer.num_frames`; of both groups, the codes of the one that has more.

        Args:
            num_samples: as there.
            sample_rate: as there.
        """
        resampled = -(-num_samples * SAMPLE_RATE // check_sample_rate(sample_rate))
        return max(self._count(name, resampled) for name in self.groups)

    # ------------------------------------------------------------------ decode

    @torch.no_grad()
    def decode(  # type: ignore[override]  # codes of two groups
        self,
        codes: GroupedCodes | Codes | Mapping[str, Any] | Tensor | Sequence[Any] | None,
        reconstruction: Codes | Tensor | Sequence[Any] | None = None,
        prompt: Any = None,
        *,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        seed: int = 0,
        use_reasoning: bool = True,
        speaker: Tensor | None = None,
        batch_size: int = 16,
    ) -> list[Tensor]:
        """Turns codes into waveforms; two calls give the same, and each clip's is what it would get alone.

        Args:
            codes: of both groups, as `encode` gives them (or by name, or a list of such clips); or the reasoning codes
                alone, of a batch or of one clip, int64 ``[K, R]``. Of a codec that was opened with the group
                ``reconstruction``, these codes.
            reconstruction: the reconstruction codes, where ``codes`` are the reasoning codes.
            prompt: None: it takes no voice.
            steps: evaluations of the flow.
            guidance: strength of classifier-free guidance; 1: none, at half the cost.
            seed: of the noise.
            use_reasoning: whether the reasoning codes have a say; else they may be missing.
            speaker: None, as ``prompt``.
            batch_size: most windows computed at once; only equally long ones are.

        Returns:
            float32 ``[T_i * 1920]`` on the CPU, at 24 kHz.

        Raises:
            ValueError: if it cannot decode, codes of one group are missing or too few for the others, or for codes out
                of range, or steps or guidance that make no sense.
        """
        self._refuse_voice(speaker, prompt)
        self._require_decoder()
        check_batch_size(batch_size)
        reasoning_rows, reconstruction_rows = self._both_of(codes, reconstruction, use_reasoning)
        clips = [self._begun(*pair) for pair in zip(reasoning_rows, reconstruction_rows, strict=True)]
        model = in_evaluation(self)
        sounds: list[list[Tensor]] = [[torch.zeros(0)] for _ in clips]
        for number in range(max((len(clip.windows) for clip in clips), default=0)):
            waiting = [index for index, clip in enumerate(clips) if number < len(clip.windows)]
            for some in _equal(waiting, clips, number, self._most(batch_size, clips, number)):
                rows = [clips[index] for index in some]
                made = model._decode_window(rows, number, steps, guidance, seed)
                for index, sound in zip(some, made, strict=True):
                    sounds[index].append(sound)
        return [torch.cat([*own, clip.tail]) for own, clip in zip(sounds, clips, strict=True)]

    def _most(self, batch_size: int, clips: Sequence[_Clip], number: int) -> int:
        """Windows computed at once, so that memory is bounded."""
        longest = max(clip.windows[number].count for clip in clips if number < len(clip.windows))
        seconds = longest * self.config.reconstruction_samples / SAMPLE_RATE
        return max(1, min(batch_size, int(self.seconds_at_once / seconds)))

    def _begun(self, reasoning_KR: Tensor | None, reconstruction_KT: Tensor) -> _Clip:
        return _Clip(reasoning_KR, reconstruction_KT, decoded_windows(reconstruction_KT.shape[1]))

    def _decode_window(
        self, clips: Sequence[_Clip], number: int, steps: int, guidance: float, seed: int
    ) -> list[Tensor]:
        """Decodes one window of each of some clips, equally long; what is certain of their sound, ``[N]``."""
        assert self.flow is not None
        assert self.sqcodec is not None
        plan = clips[0].windows[number]
        said_BTD = torch.cat([self._said(clip, clip.windows[number]) for clip in clips])
        generator = torch.Generator().manual_seed((seed * _WINDOW_SEEDS + number) % 2**63)
        noise_1FL = torch.randn(1, plan.frames, self.config.latent_size, generator=generator).to(self.device)
        latents_BFL = self.flow.sample(
            self.flow.conditions(said_BTD),
            noise_1FL.expand(len(clips), -1, -1),
            steps=steps,
            guidance=guidance,
            given_BGL=None if not number else torch.stack([self._given(clip, number) for clip in clips]),
        )
        sounds_BN = self.sqcodec.sound(latents_BFL.transpose(1, 2))[:, : plan.frames * FRAME_SAMPLES].float().cpu()
        return [
            self._joined(clip, number, latents, sound)
            for clip, latents, sound in zip(clips, latents_BFL, sounds_BN, strict=True)
        ]

    def _said(self, clip: _Clip, window: DecodedWindow) -> Tensor:
        """What the codes of a window say, ``[1, T, D]``."""
        codes_1KT = clip.reconstruction[None, :, window.first : window.first + window.count].to(self.device)
        said_1TD = self.reconstruction.decode(codes_1KT)
        if clip.reasoning is None:
            return said_1TD
        tokens_T = self.reconstruction.tokens_of(window.first, window.count)
        first, last = int(tokens_T[0]), int(tokens_T[-1])
        reasoning_1KR = clip.reasoning[None, :, first : last + 1].to(self.device)
        reasoning_1RD = self.reasoning.quantizer.decode(reasoning_1KR).to(self.dtype)
        return said_1TD + self.reconstruction.influence(reasoning_1RD, tokens_T - first)

    def _given(self, clip: _Clip, number: int) -> Tensor:
        """The latents at the beginning of a window that the one before made, ``[G, L]``."""
        assert clip.latents is not None
        shared = clip.windows[number].shared * 2
        start = len(clip.latents) - shared
        return clip.latents[start : start + GIVEN_LATENTS]

    def _joined(self, clip: _Clip, number: int, latents_FL: Tensor, sound_N: Tensor) -> Tensor:
        """Fades the sound of a window in, and keeps the end that the next one shares."""
        clip.latents = latents_FL
        num_shared = len(clip.tail)
        sound_N = torch.cat([cross_faded(clip.tail, sound_N[:num_shared]), sound_N[num_shared:]])
        is_last = number + 1 == len(clip.windows)
        kept = 0 if is_last else clip.windows[number + 1].shared * self.config.reconstruction_samples
        certain = len(sound_N) - kept
        clip.tail = sound_N[certain:].clone()
        return sound_N[:certain].clone()

    # ------------------------------------------------------------ codes, checked

    def _require_decoder(self) -> None:
        if not self.can_decode:
            raise ValueError(f"this {self.own_kind.title} cannot decode: {self.why_no_sound}")

    def _both_of(
        self, codes: Any, reconstruction: Any, use_reasoning: bool
    ) -> tuple[list[Tensor | None], list[Tensor]]:
        """The codes of each clip by group, checked."""
        if self.group == RECONSTRUCTION and reconstruction is None:
            codes, reconstruction, use_reasoning = None, codes, False
        found = self._by_group(codes, reconstruction)
        reconstruction_rows = self._rows(found.get(RECONSTRUCTION), RECONSTRUCTION)
        if not use_reasoning:
            return [None] * len(reconstruction_rows), reconstruction_rows
        reasoning_rows = self._rows(found.get(REASONING), REASONING)
        if len(reasoning_rows) != len(reconstruction_rows):
            raise ValueError(
                f"there are reasoning codes of {len(reasoning_rows)} clips and reconstruction codes of "
                f"{len(reconstruction_rows)}: give those of the same clips"
            )
        for index, (reasoning_KR, own_KT) in enumerate(zip(reasoning_rows, reconstruction_rows, strict=True)):
            needed = 1 + int(self.reconstruction.tokens_of(own_KT.shape[1] - 1, 1)) if own_KT.shape[1] else 0
            if reasoning_KR.shape[1] < needed:
                raise ValueError(
                    f"clip {index} has {reasoning_KR.shape[1]} reasoning codes and {own_KT.shape[1]} reconstruction "
                    f"codes, which need {needed}: give those of the same clip"
                )
        return list(reasoning_rows), reconstruction_rows

    def _by_group(self, codes: Any, reconstruction: Any) -> Mapping[str, Any]:
        if reconstruction is not None:
            return {REASONING: codes, RECONSTRUCTION: reconstruction}
        if isinstance(codes, GroupedCodes):
            return codes.groups
        if isinstance(codes, Mapping):
            return codes
        if isinstance(codes, Sequence) and codes and all(isinstance(one, Mapping) for one in codes):
            for index, one in enumerate(codes):
                if missing := [name for name in GROUPS if name not in one]:
                    raise ValueError(f"clip {index} has no {missing[0]} codes: give both groups")
            return {name: [one[name] for one in codes] for name in GROUPS}
        return {REASONING: codes}

    def _rows(self, codes: Any, group: str) -> list[Tensor]:
        if codes is None:
            raise ValueError(
                f"there are no {group} codes: give both groups, as encode() does"
                f"{', or use_reasoning=False' if group == REASONING else ''}"
            )
        try:
            return self.clips_of(codes, self.config.group_sizes(group))
        except ValueError as error:
            raise ValueError(f"{group} codes: {error}") from error

    # -------------------------------------------------------------------- stream

    @torch.no_grad()
    def encode_stream(self, chunks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
        """Encodes a stream window by window; the codes are those of `encode` of the whole.

        Args:
            chunks: consecutive pieces of one waveform, float ``[N_i]``, of any lengths.
            sample_rate: their rate in Hz.

        Yields:
            int64 codes on the CPU, ``[K, T]``.

        Raises:
            ValueError: as `encode`, or if there are codes of both groups.
        """
        _ = self.frame_samples  # refuses both groups
        return super().encode_stream(chunks, sample_rate)

    # ------------------------------------------------------------------- files

    def released_names(self) -> dict[str, str]:
        return {
            name: released_name(name) for name in self.weights() if not name.startswith((f"{ENCODERS}.", f"{SQCODEC}."))
        }

    @classmethod
    def read(cls, folder: Path, *, encoder_only: bool = False, variant: str | None = None) -> ReasoningCodec:
        """As `CodecTokenizer.read`.

        Args:
            folder: as there. A release may hold Whisper and WavLM in folders beside its weights, and its SQCodec.
            encoder_only: as there.
            variant: of several released checkpoints the one of this name, such as ``ReasoningCodec_1024``.
        """
        own = read_json_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        if own.get("model_type") != kind_named(cls.kind_name).own_model_type:
            return read_released(cls, folder, encoder_only, variant)
        values = own_settings(own)
        encoders, sqcodec = values.pop(ENCODERS, {}), values.pop(SQCODEC, None)
        config = settings_as(ReasoningCodecConfig, values, folder / CONFIG)
        if encoder_only:
            config, sqcodec = dataclasses.replace(config, encoder_only=True), None
        make = partial(_made, cls, config, encoders, sqcodec, folder / CONFIG)
        return cls.filled(make, folder / WEIGHTS, keep=lambda name: not (encoder_only and name.startswith(DECODING)))


def _made(
    kind: type[ReasoningCodec], config: ReasoningCodecConfig, encoders: Any, sqcodec: Any, source: Path
) -> ReasoningCodec:
    """A codec of its settings, with any weights."""
    if not isinstance(encoders, Mapping):
        raise ValueError(f"{source}: {ENCODERS} must be an object")
    made = {role: encoder_of(role, values, source) for role, values in encoders.items()}
    return kind(config, made, None if sqcodec is None else SQCodec(settings_as(SQCodecConfig, sqcodec, source)))


def _cut_as_published(clip_N: Tensor) -> Iterator[Tensor]:
    plan = published_windows(len(clip_N))
    for first in plan.first_samples[: plan.num_needed]:
        places_N = (first + torch.arange(PUBLISHED_SAMPLES, device=clip_N.device)) % len(clip_N)
        yield clip_N[places_N]


def _equal(waiting: Sequence[int], clips: Sequence[_Clip], number: int, most: int) -> Iterator[list[int]]:
    """Clips whose window of a number is equally long, at most so many at once."""
    by_length: dict[tuple[int, int], list[int]] = {}
    for index in waiting:
        window = clips[index].windows[number]
        by_length.setdefault((window.count, window.shared), []).append(index)
    for same in by_length.values():
        for start in range(0, len(same), most):
            yield same[start : start + most]
