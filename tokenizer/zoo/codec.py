"""What the tokenizers of the zoo share: from checked clips to batches and back, long clips, fingerprints, files.

A kind writes its network and says how a batch of equally long waveforms becomes codes, and codes waveforms.
"""
# Shapes: B clips, K codebooks, T frames, N samples.

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from audiollm.tokenizer.base import AudioTokenizer, Codes
from audiollm.tokenizer.checkpoints.fingerprint import decoder_fingerprint
from audiollm.tokenizer.checkpoints.folders import HUB_OPTIONS, replaced_files
from audiollm.tokenizer.checkpoints.tensors import torch_dtype
from audiollm.tokenizer.encoder.encoding import check_batch_size, in_evaluation
from audiollm.tokenizer.encoder.segments import count_tokens
from audiollm.tokenizer.kinds import CONFIG, WEIGHTS, FolderView, TokenizerKind, kind_named
from audiollm.tokenizer.opening import find_tokenizer_folder
from audiollm.tokenizer.signal.resampling import check_sample_rate, resample
from audiollm.tokenizer.signal.waveforms import check_waveforms

from .streams import whole_pieces
from .weights import read_weights

SEGMENT_SECONDS = 60.0
"""Longest clip computed whole where a tokenizer sets no limit of its own: bounds the memory of long recordings."""

TRAINING_ONLY = ("recent_codes", "num_updates", "ema_count", "ema_weight")
"""Last parts of the names of what a `Codebook` keeps for its training, which no checkpoint holds."""

Own = TypeVar("Own", bound="CodecTokenizer")


class CodecTokenizer(nn.Module, AudioTokenizer):
    """A tokenizer of the zoo.

    A subclass reads a folder in `read` and computes in `encode_batch` and `decode_batch`; what is said here holds for
    all: a clip's codes are what it would get alone, clips longer than `max_segment_seconds` are cut into pieces of that
    length, which are computed each by itself, and none is too short, for silence fills its last frame.

    Weights that decide nothing about the codes have names that begin with one of ``decoding``.
    """

    kind_name: ClassVar[str]
    """Name among `audiollm.tokenizer.kinds.KINDS`."""
    decoding: ClassVar[tuple[str, ...]] = ()
    """How the names of weights begin that only decoding needs."""
    training_only: ClassVar[tuple[str, ...]] = TRAINING_ONLY
    """Last parts of the names of what no checkpoint holds."""
    own_options: ClassVar[tuple[str, ...]] = ()
    """Names of what `from_pretrained` takes beyond the options of every kind; `configure` gets them."""
    fills_last_frame: ClassVar[bool] = True
    """Whether `encode` fills a clip's last frame with silence; else `encode_batch` takes any number of samples."""
    read_options: ClassVar[tuple[str, ...]] = ()
    """Options of `from_pretrained` that say what a release does not, for `read`; folders of our own refuse them."""
    seconds_at_once: ClassVar[float] = SEGMENT_SECONDS
    """Most seconds of all segments computed together, however many they are: the first layers hold tens of numbers for
    each sample, so that sixteen segments of a minute would take tens of gigabytes."""

    def __init__(self) -> None:
        super().__init__()
        self.name_or_path = ""
        self._fingerprint: str | None = None

    # ------------------------------------------------------------------ a kind

    @classmethod
    @abstractmethod
    def read(cls: type[Own], folder: Path, *, encoder_only: bool = False) -> Own:
        """Makes the tokenizer of a folder, in float32 or as stored, on the CPU.

        Args:
            folder: in the released layout, or as `save_pretrained` writes it.
            encoder_only: leave out what only decoding needs, if it can be.

        Raises:
            ValueError: naming the file, or the tensors, that are missing or wrong.
        """

    def configure(self, **options: Any) -> None:
        """Takes those of `own_options` that were given, once it is read.

        Raises:
            ValueError: for values that make no sense here.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What `save_pretrained` writes into ``config.json``, and `read` takes again: plain data."""

    @property
    @abstractmethod
    def frame_samples(self) -> int:
        """Samples of one frame at `sample_rate`."""

    @abstractmethod
    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        """Encodes equally long waveforms on the model's device: ``[B, K, T]``.

        N is a multiple of `frame_samples` if the class `fills_last_frame`.
        """

    def encode_batch_with_features(self, waveforms_BN: Tensor) -> tuple[Tensor, Tensor]:
        """As `encode_batch`, and what the quantizer saw, ``[B, T, D]``.

        Raises:
            ValueError: unless a kind gives features.
        """
        raise ValueError(f"{self.own_kind.title} gives no features; leave out return_features")

    def decode_batch(self, codes_BKT: Tensor) -> Tensor:
        """Decodes equally long rows of codes on the model's device: ``[B, N]``; of fewer codebooks, see
        `decodes_first_codebooks`."""
        raise NotImplementedError

    # ------------------------------------------------------------------- facts

    @property
    def kind(self) -> str:
        return self.kind_name

    @property
    def own_kind(self) -> TokenizerKind:
        """What is known of its kind."""
        return kind_named(self.kind_name)

    @property
    def output_sample_rate(self) -> int:
        return self.sample_rate

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.frame_samples

    @property
    def max_segment_seconds(self) -> float | None:
        return SEGMENT_SECONDS

    @property
    def min_codebooks(self) -> int:
        """The fewest codebooks, from the first on, that can be used."""
        return 1

    @property
    def licence_note(self) -> str:
        return self.own_kind.licence

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        resampled = -(-num_samples * self.sample_rate // check_sample_rate(sample_rate))
        return count_tokens(resampled, self._segment_samples, self.frame_samples)

    @property
    def _segment_samples(self) -> int:
        """Samples of a segment: whole frames."""
        seconds = SEGMENT_SECONDS if self.max_segment_seconds is None else self.max_segment_seconds
        return max(1, round(seconds * self.sample_rate / self.frame_samples)) * self.frame_samples

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            decisive = {
                name: one
                for name, one in self.weights().items()
                if not name.startswith(self.decoding or "\0") and name.rpartition(".")[2] not in TRAINING_ONLY
            }
            self._fingerprint = decoder_fingerprint({"kind": self.kind_name, **self.deciding_settings()}, decisive)
        return self._fingerprint

    def deciding_settings(self) -> dict[str, Any]:
        """Those of the `settings` that decide the codes, for the fingerprint."""
        return self.settings()

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint holds: the ``state_dict()`` without what codebooks keep for their training."""
        kept = self.state_dict()
        return {name: one for name, one in kept.items() if name.rpartition(".")[2] not in self.training_only}

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts exactly what `weights` names in place."""
        missing, unknown = self.load_state_dict(dict(tensors), strict=False)
        assert not unknown
        assert not self.weights().keys() & set(missing)

    def released_names(self) -> dict[str, str]:
        """What a release calls the weights, by our names; needed of kinds that are read by `filled`."""
        raise NotImplementedError

    @classmethod
    def filled(
        cls, make: Callable[[], Own], path: Path, *, released: bool = False, keep: Callable[[str], bool], **form: Any
    ) -> Own:
        """Makes a tokenizer and fills it from a file, which is looked at before anything takes memory.

        Args:
            make: makes it, with any weights.
            path: of the file.
            released: whether the weights have the names of `released_names` there, not ours.
            keep: which of the file's names count.
            form: ``spelling`` and ``under``, as in `read_weights`.

        Raises:
            ValueError: as `read_weights`.
        """
        try:
            with torch.device("meta"):
                outline = make()
        except (RuntimeError, ValueError, ArithmeticError) as error:  # also sizes that no number of bytes can say
            raise ValueError(f"{path.parent}: no tokenizer has the sizes that are set there ({error})") from error
        expected = outline.weights()
        names = outline.released_names() if released else {name: name for name in expected}
        tensors = read_weights(path, expected, names, keep=keep, **form)
        model = make()
        model.load_weights(tensors)
        return model

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

        Args:
            waveforms: float in [-1, 1], mono: a list of ``[N_i]``, one ``[N]``, or ``[B, N]``.
            sample_rate: of all waveforms, in Hz; resampled where needed.
            batch_size: most segments computed at once; only equally long ones are.
            return_features: also return what the quantizer saw, float32 ``[T_i, D]`` per clip on the CPU.

        Returns:
            Codes on the CPU; an empty clip has none.

        Raises:
            ValueError: if a waveform is not a float vector or holds NaN or infinity (naming the clip), or the sample
                rate makes no sense, or this kind gives no features.
        """
        model = in_evaluation(self)
        compute = model.encode_batch_with_features if return_features else model.encode_batch
        return self._encode(waveforms, sample_rate, batch_size, compute, self.num_codebooks, return_features)

    @torch.no_grad()
    def _encode(
        self,
        waveforms: Sequence[Tensor] | Tensor,
        sample_rate: int,
        batch_size: int,
        compute: Callable[[Tensor], Tensor | tuple[Tensor, Tensor]],
        num_codebooks: int,
        return_features: bool,
    ) -> Codes:
        """Encodes by a function of equally long waveforms ``[B, N]``: codes ``[B, K, T]``, or these and features."""
        clips = check_waveforms(waveforms)
        check_batch_size(batch_size)
        if check_sample_rate(sample_rate) != self.sample_rate:
            clips = [
                resample(clip.to(self.device), sample_rate, self.sample_rate) if len(clip) else clip for clip in clips
            ]
        segments = [(index, part) for index, clip in enumerate(clips) if len(clip) for part in self._cut(clip)]
        parts = self._in_equal_batches(compute, [part for _, part in segments], batch_size, self.sample_rate)
        nothing = torch.zeros(num_codebooks, 0, dtype=torch.int64)
        codes: list[list[Tensor]] = [[nothing] for _ in clips]
        features: list[list[Tensor]] = [[] for _ in clips]
        silence = torch.zeros(0, next((seen[0].shape[1] for _, *seen in parts if seen), 0))
        for (index, _), (part, *seen) in zip(segments, parts, strict=True):
            codes[index].append(part.to(torch.int64))
            features[index] += [one.float() for one in seen]
        return Codes.from_list(
            [torch.cat(own, dim=1) for own in codes],
            [torch.cat(own) if own else silence for own in features] if return_features else None,
            num_codebooks=num_codebooks,
        )

    def _cut(self, clip_N: Tensor) -> Iterable[Tensor]:
        for part in clip_N.split(self._segment_samples):
            missing = -len(part) % self.frame_samples if self.fills_last_frame else 0
            yield F.pad(part, (0, missing)) if missing else part  # padding by nothing would copy the recording

    def encode_stream(self, chunks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
        """Encodes a stream of any length segment by segment; the codes are those of `encode` of the whole.

        Args:
            chunks: consecutive pieces of one waveform, float ``[N_i]``, of any lengths.
            sample_rate: their rate in Hz.

        Yields:
            int64 codes on the CPU, ``[K, T]``, or ``[T]`` of one codebook.

        Raises:
            ValueError: as `encode`, when the stream comes to the bad chunk.
        """
        for piece in whole_pieces(chunks, sample_rate, self.sample_rate, self._segment_samples):
            codes_KT = self.encode(piece, self.sample_rate)[0]
            yield codes_KT if self.num_codebooks > 1 else codes_KT[0]

    # ------------------------------------------------------------------ decode

    def decode(
        self,
        codes: Codes | Tensor | Sequence[Any],
        speaker: Tensor | None = None,
        prompt: Any = None,
        *,
        batch_size: int = 16,
    ) -> list[Tensor]:
        """Turns codes into waveforms; each clip's is what it would get alone.

        Args:
            codes: of a batch; or of one clip, int64 ``[K, T]`` or, of one codebook, ``[T]``; or a list of clips. Of the
                first codebooks alone where `decodes_first_codebooks` says so.
            speaker: None; kinds whose decoder takes one say so.
            prompt: as ``speaker``.
            batch_size: most segments computed at once; only equally long ones are.

        Returns:
            float32 ``[N_i]`` on the CPU, at `output_sample_rate`.

        Raises:
            ValueError: if it cannot decode, for codes out of range or of another number of codebooks, or a speaker or
                prompt that would have no effect.
        """
        self._refuse_voice(speaker, prompt)
        return self._decode(codes, batch_size, in_evaluation(self).decode_batch)

    def _refuse_voice(self, speaker: Tensor | None, prompt: Any) -> None:
        for name, value in (("speaker", speaker), ("prompt", prompt)):
            if value is not None:
                raise ValueError(f"{name}: the decoder of {self.own_kind.title} takes none; leave it out")

    @torch.no_grad()
    def _decode(
        self,
        codes: Codes | Tensor | Sequence[Any],
        batch_size: int,
        compute: Callable[[Tensor], Tensor],
        codebook_sizes: Sequence[int] | None = None,
    ) -> list[Tensor]:
        """Decodes by a function of equally long codes ``[B, K, T]``: waveforms ``[B, N]``.

        Args:
            codes: as `decode` takes them.
            batch_size: as that of `decode`.
            compute: the function.
            codebook_sizes: V of each of the K codebooks; None: all there are.
        """
        if not self.can_decode:
            raise ValueError(
                f"this {self.own_kind.title} cannot decode: its checkpoint holds no decoder, or none was loaded"
            )
        check_batch_size(batch_size)
        clips = self.clips_of(codes, codebook_sizes)
        longest = self._segment_samples // self.frame_samples
        segments = [
            (index, part) for index, clip in enumerate(clips) if clip.shape[1] for part in clip.split(longest, dim=1)
        ]
        parts = self._in_equal_batches(compute, [part for _, part in segments], batch_size, self.frame_rate)
        waveforms: list[list[Tensor]] = [[torch.zeros(0)] for _ in clips]
        for (index, _), (part,) in zip(segments, parts, strict=True):
            waveforms[index].append(part.float())
        return [torch.cat(own) for own in waveforms]

    def _in_equal_batches(
        self,
        compute: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
        rows: Sequence[Tensor],
        batch_size: int,
        rate: float,
    ) -> list[tuple[Tensor, ...]]:
        """Computes rows ``[..., n_i]`` of a rate in Hz in batches of one length, longest first.

        What comes of each row is on the CPU, in the order of the rows.
        """
        results: list[tuple[Tensor, ...]] = [()] * len(rows)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, row in enumerate(rows):
            by_shape.setdefault(tuple(row.shape), []).append(index)
        for shape in sorted(by_shape, key=lambda one: one[-1], reverse=True):
            indices = by_shape[shape]
            most = int(max(1, min(batch_size, self.seconds_at_once * rate / shape[-1])))
            for start in range(0, len(indices), most):
                some = indices[start : start + most]
                # A row alone is not copied: where nothing is cut into segments, it is the whole recording.
                batch = rows[some[0]][None] if len(some) == 1 else torch.stack([rows[index] for index in some])
                made = compute(batch.to(self.device))
                parts = [one.cpu() for one in (made if isinstance(made, tuple) else (made,))]
                for place, index in enumerate(some):
                    results[index] = tuple(one[place].clone() for one in parts)  # a view would keep the whole batch
        return results

    def clips_of(
        self, codes: Codes | Tensor | Sequence[Any], codebook_sizes: Sequence[int] | None = None
    ) -> list[Tensor]:
        """The codes of each clip, int64 ``[K, T_i]`` on the CPU, of whatever form `decode` takes.

        Args:
            codes: as `decode` takes them.
            codebook_sizes: V of each of the K codebooks; None: all there are.

        Raises:
            ValueError: for another number of codebooks, or codes that are no integers or out of range.
        """
        if not isinstance(codes, Codes | Tensor | Iterable):
            raise ValueError(f"codes are a {type(codes).__name__}; give what encode() gave, [K, T] or a list of such")
        if isinstance(codes, Codes):
            clips = [codes[index] for index in range(len(codes))]
        elif isinstance(codes, Tensor):
            clips = list(codes) if codes.dim() == 3 else [codes]
        else:
            clips = [_as_codes(clip, f"clip {index}") for index, clip in enumerate(codes)]
        sizes = self.codebook_sizes if codebook_sizes is None else codebook_sizes
        return [self._checked(clip, f"clip {index}", sizes) for index, clip in enumerate(clips)]

    def _checked(self, clip: Tensor, name: str, sizes: Sequence[int]) -> Tensor:
        clip = clip[None] if clip.dim() == 1 and len(sizes) == 1 else clip
        fewest = self.min_codebooks if self.decodes_first_codebooks else len(sizes)
        if clip.dim() != 2 or not fewest <= clip.shape[0] <= len(sizes):
            wanted = f"{fewest} to {len(sizes)}" if fewest < len(sizes) else len(sizes)
            have = "1 codebook" if self.num_codebooks == 1 else f"{self.num_codebooks} codebooks"
            raise ValueError(
                f"{name} has codes of shape {list(clip.shape)}, but this {self.own_kind.title} has {have}: give "
                f"[{wanted}, T]"
            )
        if clip.numel() and (clip.is_floating_point() or clip.dtype == torch.bool):
            raise ValueError(f"{name} has codes of {clip.dtype}; give whole numbers")
        clip = clip.to("cpu", torch.int64)
        for number, (row, size) in enumerate(zip(clip, sizes, strict=False)):
            if len(row) and not 0 <= int(row.min()) <= int(row.max()) < size:
                wrong = int(row[(row < 0) | (row >= size)][0])
                raise ValueError(f"{name}: code {wrong} of codebook {number} is outside [0, {size})")
        return clip

    # ------------------------------------------------------------------- files

    @classmethod
    def from_pretrained(
        cls: type[Own],
        path_or_hub_id: str | Path,
        /,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        encoder_only: bool = False,
        fingerprint: str | None = None,
        **options: Any,
    ) -> Own:
        """Loads a released checkpoint, or what `save_pretrained` wrote.

        Args:
            path_or_hub_id: a folder or Hub id.
            dtype: of the weights; float32 if None.
            device: where to put the model; the CPU if None.
            encoder_only: leave out what only decoding needs.
            fingerprint: of the tokenizer that is meant; another one is refused.
            options: of this kind (`own_options`, `read_options`), and ``revision``, ``cache_dir`` … as in
                huggingface_hub.

        Raises:
            ValueError: naming the file or the tensors that are missing or wrong, or both fingerprints, or an option of
                releases for what we have saved.
            TypeError: for an option that is not known.
        """
        known = (*HUB_OPTIONS, *cls.own_options, *cls.read_options)
        unknown = sorted(options.keys() - set(known))
        if unknown:
            raise TypeError(
                f"unknown options of {kind_named(cls.kind_name).title}: {', '.join(unknown)}; known are "
                f"{', '.join(known)}"
            )
        own = {name: options.pop(name) for name in cls.own_options if name in options}
        for_read = {name: options.pop(name) for name in cls.read_options if name in options}
        folder = find_tokenizer_folder(path_or_hub_id, options)
        cls._refuse_for_own(folder, for_read)
        model = cls.read(folder, encoder_only=encoder_only, **for_read).float()
        model.configure(**own)
        found = model.fingerprint()  # before the cast: the same in any precision
        if fingerprint not in (None, found):
            raise ValueError(
                f"{folder} is another audio tokenizer (fingerprint {found[:12]}…) than the one whose codes are meant "
                f"({fingerprint[:12]}…): put that one back"
            )
        model.name_or_path = str(path_or_hub_id)
        target = torch_dtype(dtype)
        return model.to(device=device or "cpu", dtype=target).eval()

    @classmethod
    def _refuse_for_own(cls, folder: Path, options: Mapping[str, Any]) -> None:
        """Refuses what is said of a release where there is none: nothing would come of it."""
        said = [f"{name}={value!r}" for name, value in options.items() if value is not None]
        if said and FolderView(folder).config.get("model_type") == kind_named(cls.kind_name).own_model_type:
            raise ValueError(f"{', '.join(said)} is for releases, but {folder} holds one that we saved: leave it out")

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes ``config.json`` and ``model.safetensors`` in our own layout; each appears whole or not at all."""
        tensors = {name: one.detach().cpu().contiguous() for name, one in self.weights().items()}
        values = {"model_type": self.own_kind.own_model_type, **self.settings()}
        with replaced_files(Path(folder), WEIGHTS, CONFIG) as staging:
            save_file(tensors, staging / WEIGHTS, metadata={"format": "pt"})
            (staging / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _as_codes(clip: Any, name: str) -> Tensor:
    """Codes of a clip as a tensor.

    Raises:
        ValueError: if they are neither numbers nor rows of equally many.
    """
    try:
        return torch.as_tensor(clip)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} has codes that are no whole numbers in rows of one length: {error}") from error


def own_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `CodecTokenizer.settings` gave, from a ``config.json`` that `CodecTokenizer.save_pretrained` wrote."""
    return {name: value for name, value in config.items() if name != "model_type"}
