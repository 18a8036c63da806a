"""`LoSATok`: from waveforms to continuous latents, and back."""
# Shapes: B clips or pieces of them, N samples, T tokens, E feature size, D latent size.

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.base import Codes, Latents
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.checkpoints.tensors import check_complete
from audiollm.tokenizer.encoder.encoding import check_batch_size, in_evaluation
from audiollm.tokenizer.kinds import CONFIG, WEIGHTS, kind_named
from audiollm.tokenizer.layers.istft import InverseSTFTHead
from audiollm.tokenizer.layers.vocos import VocosBackbone
from audiollm.tokenizer.signal.resampling import Resampler, check_sample_rate, resample
from audiollm.tokenizer.signal.waveforms import check_waveform, check_waveforms
from audiollm.tokenizer.zoo.codec import CodecTokenizer, own_settings
from audiollm.tokenizer.zoo.settings import settings_as

from .acoustic import AcousticEncoder
from .configuration import (
    LARGEST_LOG_VARIANCE,
    MARGIN,
    SAMPLE_RATE,
    TOKEN_SAMPLES,
    LoSATokConfig,
    count_tokens,
    piece_samples,
)
from .front_ends import cut_pieces, extend
from .names import DECODING as RELEASED_DECODING
from .names import teacher_values, whole_names, whole_values
from .semantic import TEACHER, SemanticEncoder, read_released
from .teacher.dasheng import DashengSizes, DashengTeacher
from .teacher.kinds import teacher_of

DECODING = ("semantic.bottleneck.restore.", "upsample.", "backbone.", "head.")
"""How the names of weights begin that decide nothing about the latents; the first are for training alone."""
DECODED_TOKENS = 250
"""Tokens decoded at once of a long clip, beside those that they depend on."""
STREAMED_TOKENS = 25
"""Fewest tokens that a stream decodes at once."""
KERNEL_REACH = 3
"""Frames that a convolution of the decoder looks at on either side."""


@dataclass
class Encoded:
    """Everything that is made of a batch on the way to its latents.

    Args:
        semantic_high: the teacher's features, ``[B, T, E]``.
        semantic_low: SemBo's, ``[B, T, D]``.
        acoustic_high: of the patches, ``[B, T, E]``.
        acoustic_low: these made small, ``[B, T, D]``.
        mean: of the latents, ``[B, T, D]``.
        log_variance: of the same.
    """

    semantic_high: Tensor
    semantic_low: Tensor
    acoustic_high: Tensor
    acoustic_low: Tensor
    mean: Tensor
    log_variance: Tensor

    @property
    def unified_high(self) -> Tensor:
        """Both sides added, ``[B, T, E]``; nothing is made of it."""
        return self.semantic_high + self.acoustic_high

    @property
    def unified_low(self) -> Tensor:
        """Both sides added, ``[B, T, D]``, of which the latents are made."""
        return self.semantic_low + self.acoustic_low

    def sampled(self, noise_BTD: Tensor) -> Tensor:
        """Latents drawn with standard normal noise."""
        return self.mean + (0.5 * self.log_variance).exp() * noise_BTD

    def features(self) -> dict[str, Tensor]:
        """All but the latents, by name."""
        names = ("semantic_high", "semantic_low", "acoustic_high", "acoustic_low", "unified_high", "unified_low")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class _Piece:
    """A piece of a clip, with margins."""

    clip: int
    number: int
    extended: Tensor  # [N]
    loudest: Tensor | None  # of the whole clip, scalar; None: this is the whole


class LoSATok(CodecTokenizer):
    """Latents of speech, music and all else, which hold what is meant and how it sounds.

    A clip is cut where its teacher has to be: every 10.08 s in all releases. All else depends on a few samples around
    a token, so that a long clip's latents and sound are those of the whole, however long it is.
    """

    kind_name = "losatok"
    decoding = DECODING
    read_options = ("variant", "num_heads")

    def __init__(self, config: LoSATokConfig, semantic: SemanticEncoder) -> None:
        super().__init__()
        if semantic.config != config.semantic:
            raise ValueError(
                f"the semantic side has {_told(semantic.config)}, but the tokenizer {_told(config.semantic)}: "
                "make them agree"
            )
        self.config = config
        self.semantic = semantic
        self.acoustic = AcousticEncoder(config)
        self.acoustic_low = nn.Linear(config.feature_size, config.latent_size)
        self.mean = nn.Linear(config.latent_size, config.latent_size)
        self.log_variance = nn.Linear(config.latent_size, config.latent_size)
        self.upsample: nn.ConvTranspose1d | None = None
        self.backbone: VocosBackbone | None = None
        self.head: InverseSTFTHead | None = None
        if not config.encoder_only:
            self.upsample = nn.ConvTranspose1d(
                config.latent_size, config.feature_size, kernel_size=config.upsampling, stride=config.upsampling
            )
            self.backbone = VocosBackbone(
                config.feature_size, config.decoder_size, config.decoder_intermediate_size, config.decoder_layers
            )
            self.head = InverseSTFTHead(config.decoder_size, config.n_fft, config.decoder_hop)

    # ------------------------------------------------------------------- facts

    @property
    def sample_rate(self) -> int:
        return SAMPLE_RATE

    @property
    def frame_samples(self) -> int:
        return TOKEN_SAMPLES

    @property
    def num_codebooks(self) -> int:
        return 0

    @property
    def codebook_size(self) -> int:
        return 0

    @property
    def latent_size(self) -> int:
        return self.config.latent_size

    @property
    def max_segment_seconds(self) -> float | None:
        return None

    @property
    def can_decode(self) -> bool:
        return self.backbone is not None

    @property
    def dtype(self) -> torch.dtype:
        return self.acoustic_low.weight.dtype

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        return count_tokens(math.ceil(num_samples * SAMPLE_RATE / check_sample_rate(sample_rate)))

    def settings(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.config), TEACHER: self.semantic.settings()[TEACHER]}

    def deciding_settings(self) -> dict[str, Any]:
        keys = ("feature_size", "bottleneck_size", "latent_size", "num_mels", "mel_n_fft", TEACHER)
        return {name: value for name, value in self.settings().items() if name in keys}

    # ------------------------------------------------------------------ encode

    def analyze(self, waveforms_BN: Tensor, loudest_B: Tensor | None = None) -> Encoded:
        """Computes everything of equally long whole waveforms at 16 kHz, with gradients; for training.

        Args:
            waveforms_BN: on the model's device.
            loudest_B: as for the teacher, see `Teacher.forward`; None: what each clip's own is.

        Raises:
            ValueError: if the teacher gives something else than it should.
        """
        extended_BN = extend(waveforms_BN)
        teacher = self.semantic.teacher
        pieces = cut_pieces(extended_BN, waveforms_BN.shape[1], teacher.piece_tokens)
        if loudest_B is None and len(pieces) > 1 and teacher.has_range:
            with torch.no_grad():
                loudest_B = teacher.loudest_of(pieces)
        parts = [self.analyze_piece(piece, loudest_B) for piece in pieces]
        names = [field.name for field in dataclasses.fields(Encoded)]
        return Encoded(**{name: torch.cat([getattr(one, name) for one in parts], dim=1) for name in names})

    def analyze_piece(self, extended_BN: Tensor, loudest_B: Tensor | None = None) -> Encoded:
        """As `analyze`, of pieces with margins, each from a clip that is as loud as `Teacher.loudest` says."""
        semantic_high = self.semantic.high(extended_BN, loudest_B)
        acoustic_high = self.acoustic(self.acoustic.log_mel(extended_BN))
        num_tokens = min(semantic_high.shape[1], acoustic_high.shape[1])
        return self.fuse(semantic_high[:, :num_tokens], acoustic_high[:, :num_tokens])

    def fuse(self, semantic_high: Tensor, acoustic_high: Tensor) -> Encoded:
        """Makes latents of both sides' features, ``[B, T, E]`` each."""
        semantic_low = self.semantic.bottleneck.compress(semantic_high)
        acoustic_low = self.acoustic_low(acoustic_high)
        mean, log_variance = self.distribution(semantic_low + acoustic_low)
        return Encoded(semantic_high, semantic_low, acoustic_high, acoustic_low, mean, log_variance)

    def distribution(self, unified_low: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, ``[B, T, D]`` each."""
        log_variance = self.log_variance(unified_low).clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)
        return self.mean(unified_low), log_variance

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        """Encodes equally long waveforms on the model's device: mean latents ``[B, T, D]``."""
        return self.analyze(waveforms_BN).mean

    @torch.no_grad()
    def encode(  # type: ignore[override]  # latents in place of codes
        self,
        waveforms: Sequence[Tensor] | Tensor,
        sample_rate: int,
        sample: bool = False,
        *,
        batch_size: int = 16,
        return_features: bool = False,
        generator: torch.Generator | None = None,
    ) -> Latents:
        """Turns waveforms into latents; each clip's are what it would get alone.

        Args:
            waveforms: float in [-1, 1], mono: a list of ``[N_i]``, one ``[N]``, or ``[B, N]``.
            sample_rate: of all waveforms, in Hz; resampled where needed.
            sample: draw the latents from their distribution; else they are its mean.
            batch_size: most pieces computed at once; only equally long ones are.
            return_features: also return high and low features, semantic, acoustic and unified.
            generator: for ``sample``, on the CPU; None: torch's own.

        Returns:
            Latents, mean and log-variance on the CPU in float32; an empty clip has none.

        Raises:
            ValueError: if a waveform is not a float vector or holds NaN or infinity (naming the clip), or the sample
                rate makes no sense, or the teacher gives something else than it should, or NaN (naming the clip).
        """
        clips = check_waveforms(waveforms)
        check_batch_size(batch_size)
        if check_sample_rate(sample_rate) != SAMPLE_RATE:
            clips = [resample(clip.to(self.device), sample_rate, SAMPLE_RATE) if len(clip) else clip for clip in clips]
        model = in_evaluation(self)
        found: list[dict[int, dict[str, Tensor]]] = [{} for _ in clips]
        for batch, one in model._in_pieces(clips, batch_size):
            for row, piece in enumerate(batch):
                _check_finite(one.mean[row], f"clip {piece.clip}")
            made = {"mean": one.mean, "log_variance": one.log_variance}
            made |= one.features() if return_features else {}
            rows = {name: value.float().cpu() for name, value in made.items()}
            for row, piece in enumerate(batch):
                found[piece.clip][piece.number] = {name: value[row].clone() for name, value in rows.items()}
        names = ["mean", "log_variance", *(_feature_sizes(self.config) if return_features else ())]
        # Pieces come by length: the short last one of a clip may be there first.
        in_order = [[parts[number] for number in sorted(parts)] for parts in found]
        whole = {name: [_joined(parts, name, self.config) for parts in in_order] for name in names}
        means, log_variances = whole.pop("mean"), whole.pop("log_variance")
        latents = means
        if sample:
            latents = [
                mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=generator)
                for mean, log_variance in zip(means, log_variances, strict=True)
            ]
        lengths = torch.tensor([len(one) for one in means], dtype=torch.int64)
        padded = [
            nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else torch.zeros(0, 0, self.latent_size)
            for rows in (latents, means, log_variances)
        ]
        return Latents(padded[0], lengths, padded[1], padded[2], whole if return_features else None)

    def _in_pieces(self, clips: Sequence[Tensor], batch_size: int) -> Iterator[tuple[list[_Piece], Encoded]]:
        """Encodes the pieces of clips in batches of equally long ones; yields each batch and what was made of it."""
        teacher = self.semantic.teacher
        waiting: dict[int, list[_Piece]] = {}
        for index, clip in enumerate(clips):
            parts = cut_pieces(extend(clip), len(clip), teacher.piece_tokens) if len(clip) else []
            loudest = None
            if teacher.has_range and len(parts) > 1:
                [loudest] = teacher.loudest_of(part[None].to(self.device) for part in parts)
            for number, part in enumerate(parts):
                same = waiting.setdefault(len(part), [])
                same.append(_Piece(index, number, part, loudest))
                if len(same) == batch_size:
                    yield same, self._encode_pieces(same)
                    waiting[len(part)] = []
        for same in waiting.values():
            if same:
                yield same, self._encode_pieces(same)

    def _encode_pieces(self, batch: Sequence[_Piece]) -> Encoded:
        extended_BN = torch.stack([piece.extended for piece in batch]).to(self.device)
        loudest_B = None
        if any(piece.loudest is not None for piece in batch):
            own_B = self.semantic.teacher.loudest(extended_BN)
            loudest_B = torch.stack(
                [own if piece.loudest is None else piece.loudest for own, piece in zip(own_B, batch, strict=True)]
            )
        return self.analyze_piece(extended_BN, loudest_B)

    @torch.no_grad()
    def encode_stream(self, chunks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
        """Encodes consecutive pieces of one waveform, each ``[N_i]``; yields mean latents, float32 ``[T, D]``.

        They come as soon as the teacher has heard as much as it looks at together (every 10.08 s in all releases), and
        are those of the whole, but where it begins more than 120 dB below what comes later.

        Raises:
            ValueError: as `encode`.
        """
        model = in_evaluation(self)
        resampler = Resampler(check_sample_rate(sample_rate), SAMPLE_RATE)
        pieces = _StreamedPieces(self.semantic.teacher.piece_tokens)
        loudest: Tensor | None = None

        def encoded(ready: Iterable[Tensor]) -> Iterator[Tensor]:
            nonlocal loudest
            for piece in ready:
                extended_BN = piece[None].to(self.device)
                alone = model.semantic.teacher.loudest(extended_BN)
                loudest = alone if loudest is None else torch.maximum(loudest, alone)
                latents_TD = model.analyze_piece(extended_BN, loudest).mean[0].float().cpu()
                _check_finite(latents_TD, "the stream")
                yield latents_TD

        for number, chunk in enumerate(chunks):
            yield from encoded(pieces.push(resampler.push(check_waveform(chunk, f"chunk {number}"))))
        yield from encoded([*pieces.push(resampler.finish()), *pieces.finish()])

    # ------------------------------------------------------------------ decode

    def decode_batch(self, codes_BKT: Tensor) -> Tensor:
        """Decodes equally long rows of latents ``[B, T, D]`` on the model's device: float32 ``[B, N]``."""
        assert self.upsample is not None
        assert self.backbone is not None
        assert self.head is not None
        frames_BET = self.upsample(codes_BKT.to(self.dtype).transpose(1, 2))
        waveforms_BN: Tensor = self.head(self.backbone(frames_BET))
        return waveforms_BN

    @property
    def _reach(self) -> int:
        """Tokens on either side on which the sound of a token depends."""
        windows = math.ceil(self.config.n_fft / self.config.decoder_hop / 2)
        frames = KERNEL_REACH * (1 + self.config.decoder_layers) + windows
        return math.ceil(frames / self.config.upsampling)

    @torch.no_grad()
    def decode(  # latents in place of codes
        self,
        latents: Latents | Codes | Tensor | Sequence[Any],
        speaker: Tensor | None = None,
        prompt: Any = None,
        *,
        batch_size: int = 16,
    ) -> list[Tensor]:
        """Turns latents into waveforms; each clip's is what it would get alone.

        Args:
            latents: of a batch; or of one clip, float ``[T, D]``; or a list of clips.
            speaker: None: there is none but in the latents.
            prompt: None.
            batch_size: most pieces computed at once; only equally long ones are.

        Returns:
            float32 ``[T_i * 640]`` on the CPU, at 16 kHz.

        Raises:
            ValueError: if it cannot decode, for latents of another size or that are no numbers, or so large that there
                is no sound of them, or a speaker or prompt.
        """
        self._refuse_voice(speaker, prompt)
        self._require_decoder()
        check_batch_size(batch_size)
        clips = self._latents_of(latents)
        model = in_evaluation(self)
        places = [(index, first) for index, clip in enumerate(clips) for first in range(0, len(clip), DECODED_TOKENS)]
        windows = [self._window(clips[index], first) for index, first in places]
        parts = self._in_equal_batches(model._decode_rows, windows, batch_size, self.frame_rate)
        waveforms: list[list[Tensor]] = [[torch.zeros(0)] for _ in clips]
        for (index, first), (part,) in zip(places, parts, strict=True):
            skipped = min(first, self._reach)
            wanted = min(DECODED_TOKENS, len(clips[index]) - first)
            start = skipped * TOKEN_SAMPLES
            samples = part[start : start + wanted * TOKEN_SAMPLES].clone()
            _check_sound(samples, f"clip {index}")
            waveforms[index].append(samples)
        return [torch.cat(own) for own in waveforms]

    def _window(self, clip_TD: Tensor, first: int) -> Tensor:
        """The latents that some tokens' sound depends on, transposed as rows are batched, ``[D, T]``."""
        return clip_TD[max(0, first - self._reach) : first + DECODED_TOKENS + self._reach].T

    def _decode_rows(self, rows_BDT: Tensor) -> Tensor:
        return self.decode_batch(rows_BDT.transpose(1, 2))

    @torch.no_grad()
    def decode_stream(  # latents in place of codes
        self, latents: Iterable[Tensor], speaker: Tensor | None = None, prompt: Any = None
    ) -> Iterator[Tensor]:
        """Decodes consecutive latents of one clip, ``[T_i, D]`` each; yields samples that are those of the whole.

        Raises:
            ValueError: as `decode`.
        """
        self._refuse_voice(speaker, prompt)
        self._require_decoder()
        model, reach = in_evaluation(self), self._reach
        kept_TD, num_before = torch.zeros(0, self.latent_size), 0  # tokens kept, and how many of them are done

        def sound(num_tokens: int) -> Tensor:
            waveform = model.decode_batch(kept_TD[None].to(self.device))[0].cpu()
            start = num_before * TOKEN_SAMPLES
            samples = waveform[start : start + num_tokens * TOKEN_SAMPLES].clone()
            _check_sound(samples, "the stream")
            return samples

        for number, some in enumerate(latents):
            kept_TD = torch.cat([kept_TD, self._checked_latents(some, f"piece {number}")])
            ready = len(kept_TD) - num_before - reach
            if ready >= STREAMED_TOKENS:
                yield sound(ready)
                done = num_before + ready
                kept_TD, num_before = kept_TD[max(0, done - reach) :], min(done, reach)
        if rest := len(kept_TD) - num_before:
            yield sound(rest)

    def _require_decoder(self) -> None:
        if not self.can_decode:
            raise ValueError(f"this {self.own_kind.title} cannot decode: it was loaded without its decoder")

    def _latents_of(self, latents: Latents | Codes | Tensor | Sequence[Any]) -> list[Tensor]:
        if isinstance(latents, Codes):
            raise ValueError(f"{self.own_kind.title} has no codes: give the latents that encode() returned")
        clips: list[Any]
        if isinstance(latents, Latents):
            clips = [latents[index] for index in range(len(latents))]
        elif isinstance(latents, Tensor):
            clips = list(latents) if latents.dim() == 3 else [latents]
        elif isinstance(latents, Iterable):
            clips = list(latents)
        else:
            raise ValueError(f"latents are a {type(latents).__name__}: give what encode() returned, or floats [T, D]")
        return [self._checked_latents(clip, f"clip {index}") for index, clip in enumerate(clips)]

    def _checked_latents(self, clip: Any, name: str) -> Tensor:
        try:
            clip = torch.as_tensor(clip)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{name} is a {type(clip).__name__} of which no latents can be read ({error}): give floats "
                f"[T, {self.latent_size}]"
            ) from error
        if clip.dim() != 2 or clip.shape[1] != self.latent_size or not clip.is_floating_point():
            raise ValueError(
                f"{name} has latents of {clip.dtype} {list(clip.shape)}, but this {self.own_kind.title} makes floats "
                f"[T, {self.latent_size}]"
            )
        if not torch.isfinite(clip).all():
            raise ValueError(f"{name} has latents that are NaN or infinite")
        return clip.detach().float().cpu()

    # ------------------------------------------------------------------- files

    def released_names(self) -> dict[str, str]:
        return whole_names(self.weights())

    @classmethod
    def read(
        cls, folder: Path, *, encoder_only: bool = False, variant: str | None = None, num_heads: int | None = None
    ) -> LoSATok:
        """As `CodecTokenizer.read`.

        Args:
            folder: as there.
            encoder_only: as there.
            variant: of several released files the one whose name has this in it, such as ``kl1e-3``.
            num_heads: of a released teacher; None: those of releases of its width.
        """
        own = read_json_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        if own.get("model_type") != kind_named(cls.kind_name).own_model_type:
            return cls._read_released(_released_file(folder, variant), encoder_only, num_heads)
        values = own_settings(own)
        teacher = values.pop(TEACHER, None)
        config = settings_as(LoSATokConfig, values, folder / CONFIG)
        if encoder_only:
            config = dataclasses.replace(config, encoder_only=True)
        make = partial(_made, cls, config, partial(teacher_of, teacher, folder / CONFIG))
        return cls.filled(make, folder / WEIGHTS, keep=_kept(encoder_only, DECODING[1:]))

    @classmethod
    def _read_released(cls, path: Path, encoder_only: bool, num_heads: int | None) -> LoSATok:
        tensors = read_released(path)
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
        config = settings_as(LoSATokConfig, {**whole_values(shapes, path), "encoder_only": encoder_only}, path)
        values = teacher_values(shapes, "semantic_encoder.encoder.", num_heads, path)
        sizes = settings_as(DashengSizes, values, path)
        make = partial(_made, cls, config, partial(DashengTeacher, sizes))
        with torch.device("meta"):
            outline = make()
        names = outline.released_names()
        kept = _kept(encoder_only, RELEASED_DECODING)
        check_complete(
            {names[name]: one for name, one in outline.weights().items()},
            {name: tensor for name, tensor in tensors.items() if kept(name)},
            path,
        )
        model = make()
        model.load_weights({name: tensors[released] for name, released in names.items()})
        return model


def _made(kind: type[LoSATok], config: LoSATokConfig, teacher: Callable[[], Any]) -> LoSATok:
    return kind(config, SemanticEncoder(config.semantic, teacher()))


def _kept(encoder_only: bool, left_out: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda name: not (encoder_only and name.startswith(left_out))


def _released_file(folder: Path, variant: str | None) -> Path:
    """The released weights in a folder.

    Raises:
        ValueError: if there are none, or several and nothing says which.
    """
    found = sorted(folder.glob("losatok*.pth"))
    if (folder / WEIGHTS).is_file():
        if variant is None:
            return folder / WEIGHTS
        if not found:
            raise ValueError(
                f"variant={variant!r} names one of several released files; leave it out: {folder} holds {WEIGHTS} alone"
            )
    wanted = [path for path in found if variant is None or variant in path.name]
    if len(wanted) == 1:
        return wanted[0]
    names = ", ".join(path.name for path in found)
    if not found:
        raise ValueError(f"{folder} holds no weights of a LoSATok: put losatok_kl1e-2.pth or {WEIGHTS} there")
    if variant is None:
        raise ValueError(f"{folder} holds several: {names}; say which by variant, such as variant='kl1e-2'")
    raise ValueError(f"variant={variant!r} names {len(wanted)} of {names} in {folder}: name one of them")


def _check_finite(latents_TD: Tensor, name: str) -> None:
    if not torch.isfinite(latents_TD).all():
        raise ValueError(
            f"{name} has latents that are NaN or infinite: its teacher or its weights are; some encoders give NaN for "
            "digital silence"
        )


def _check_sound(samples_N: Tensor, name: str) -> None:
    if not torch.isfinite(samples_N).all():
        raise ValueError(
            f"{name} decodes to samples that are NaN or infinite: its latents are larger than any of a recording, or "
            "than the decoder's dtype holds; use float32 or bfloat16"
        )


def _told(config: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in dataclasses.asdict(config).items())


def _feature_sizes(config: LoSATokConfig) -> dict[str, int]:
    """Sizes of what `Encoded.features` gives."""
    return {
        f"{side}_{height}": size
        for side in ("semantic", "acoustic", "unified")
        for height, size in (("high", config.feature_size), ("low", config.latent_size))
    }


def _joined(parts: Sequence[dict[str, Tensor]], name: str, config: LoSATokConfig) -> Tensor:
    """What was made of a clip's pieces, as one."""
    size = _feature_sizes(config).get(name, config.latent_size)
    return torch.cat([one[name] for one in parts]) if parts else torch.zeros(0, size)


class _StreamedPieces:
    """Cuts a stream of samples into pieces with margins, as `extend` and `cut_pieces` do with the whole of it."""

    def __init__(self, piece_tokens: int) -> None:
        self._piece_tokens = piece_tokens
        self._waiting = torch.zeros(0)  # from `MARGIN` before the next piece on, once anything has begun
        self._num_samples = 0
        self._num_tokens = 0  # cut so far

    def push(self, samples_N: Tensor) -> Iterator[Tensor]:
        """Takes samples; yields the pieces that are whole by now."""
        self._waiting = torch.cat([self._waiting, samples_N.cpu()])
        before, self._num_samples = self._num_samples, self._num_samples + len(samples_N)
        if before <= MARGIN < self._num_samples:  # long enough to be reflected at its beginning
            self._waiting = F.pad(self._waiting[None, None], (MARGIN, 0), mode="reflect")[0, 0]
        if self._num_samples <= MARGIN:
            return
        size = piece_samples(self._piece_tokens)
        while len(self._waiting) >= size:
            yield self._waiting[:size].clone()
            self._waiting = self._waiting[self._piece_tokens * TOKEN_SAMPLES :]
            self._num_tokens += self._piece_tokens

    def finish(self) -> Iterator[Tensor]:
        """Yields what is left, if it makes a token or more."""
        rest = count_tokens(self._num_samples) - self._num_tokens
        if rest <= 0:
            return
        if self._num_samples <= MARGIN:
            ended = extend(self._waiting)
        else:
            ended = F.pad(self._waiting[None, None], (0, MARGIN), mode="reflect")[0, 0]
        yield ended[: piece_samples(rest)]
