"""The frozen encoders that a ReasoningCodec hears by: Whisper, WavLM, and one of music; any will do.

Each takes waveforms at its own rate and gives one or several streams of vectors. Those that are wrapped here from
transformers are saved with the codec; any other is plugged in again whenever the codec is opened.
"""
# Shapes: B clips, N samples, S vectors, E their size.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, FeatureExtractionMixin, PreTrainedModel

from audiollm.tokenizer.signal.resampling import check_sample_rate

WHISPER, WAVLM, MUSIC = ROLES = ("whisper", "wavlm", "music")
RATES: Mapping[str, float] = {WHISPER: 50.0, WAVLM: 50.0, MUSIC: 25.0}
"""Vectors per second that each must give, in Hz."""
STREAMS: Mapping[str, int] = {WHISPER: 1, WAVLM: 1, MUSIC: 2}
"""How many streams; those of music are early layers, which tell how it sounds, and late ones, which tell what it is."""
TOLERANCE = 3
"""Vectors that an encoder may lose at the end of a clip."""
_PROBE_SECONDS = 10  # of silence, by which an encoder tells its rate
WAVLM_LAYERS = (6, 7, 8, 9)
WAVLM_SILENCE = 160
"""Samples behind a clip, for the vector that WavLM's convolutions would lose."""
MUSIC_LAYERS = (4, 11)
LAST = -1
"""In place of a layer: what the model gives in the end."""


class FrozenEncoder(nn.Module, ABC):
    """A frozen encoder; whoever uses it asks for no gradients.

    Attributes:
        kind: name in saved settings; empty: it can't be saved.
        feature_size: E.
        frame_rate: S per second, in Hz.
        sample_rate: of the waveforms that it takes, in Hz.
    """

    kind: ClassVar[str] = ""

    def __init__(self, feature_size: int, frame_rate: float, sample_rate: int) -> None:
        super().__init__()
        self.feature_size = feature_size
        self.frame_rate = frame_rate
        self.sample_rate = check_sample_rate(sample_rate)

    @abstractmethod
    def forward(self, waveforms_BN: Tensor) -> Any:
        """Computes vectors ``[B, S, E]`` of equally long waveforms, or a tuple of streams of them."""

    def deciding(self) -> dict[str, Any]:
        """Plain data that decide what it gives, beside its weights; the same in any version of a library."""
        return {"feature_size": self.feature_size, "frame_rate": self.frame_rate, "sample_rate": self.sample_rate}

    def settings(self) -> dict[str, Any]:
        """Plain data that make it again, but for its weights.

        Raises:
            ValueError: if it can't be saved.
        """
        raise ValueError(
            f"a {type(self).__name__} can't be saved, as nothing would load it: detach it "
            "(codec.detach_encoders()), and give it again when the codec is opened"
        )


class PluggedEncoder(FrozenEncoder):
    """Any function of waveforms.

    Args:
        encoder: from waveforms ``[B, N]`` at its rate to vectors ``[B, S, E]``, or a tuple of streams. If it is a
            module, its weights are the codec's.
        feature_size: E.
        frame_rate: S per second, in Hz.
        sample_rate: in Hz.
    """

    def __init__(
        self, encoder: Callable[[Tensor], Any], feature_size: int, frame_rate: float, sample_rate: int = 16000
    ) -> None:
        super().__init__(feature_size, frame_rate, sample_rate)
        self.encoder = encoder

    def forward(self, waveforms_BN: Tensor) -> Any:
        return self.encoder(waveforms_BN)


class TransformersEncoder(FrozenEncoder):
    """An audio encoder of transformers; of a model with a decoder, such as Whisper, the encoder.

    One whose extractor fills clips up to a length (Whisper's: 30 s) hears longer ones piece by piece.

    Args:
        model: the model.
        extractor: makes its inputs of waveforms; None: it gets them as they are.
        layers: for each stream the hidden states whose mean it is: 0 is what the first layer sees, `LAST` what the
            model gives in the end.
        pool: consecutive vectors of which the mean is taken.
        silence: samples put behind a clip.
        facts: feature size, frame rate and sample rate; None: tried out.

    Raises:
        ValueError: if it lacks such layers, or takes no waveforms.
    """

    kind = "transformers"

    def __init__(
        self,
        model: PreTrainedModel,
        extractor: FeatureExtractionMixin | None,
        layers: Sequence[Sequence[int]] = ((LAST,),),
        *,
        pool: int = 1,
        silence: int = 0,
        facts: tuple[int, float, int] | None = None,
    ) -> None:
        encoder: Any = model.get_encoder() if model.config.is_encoder_decoder else model
        num_layers = int(encoder.config.num_hidden_layers)
        most = max((one for stream in layers for one in stream), default=0)
        if not layers or not all(layers) or most > num_layers:
            raise ValueError(
                f"layers={[list(one) for one in layers]}: this encoder has hidden states 0 to {num_layers}"
            )
        if pool < 1:
            raise ValueError(f"pool={pool}: give 1 or more")
        sample_rate = 16000 if extractor is None else int(vars(extractor)["sampling_rate"])
        super().__init__(0, 0.0, sample_rate if facts is None else facts[2])
        self.encoder = encoder
        self.layers = tuple(tuple(one) for one in layers)
        self.pool, self.silence = pool, silence
        self._extractor = extractor
        self._config = model.config.to_dict()
        filled_seconds = getattr(extractor, "chunk_length", None)
        self._piece_samples = None if filled_seconds is None else int(filled_seconds * sample_rate)
        if facts is None:
            seconds = filled_seconds or _PROBE_SECONDS
            probe_BSE = self._streams(torch.zeros(1, int(seconds * sample_rate)))[0]
            facts = (probe_BSE.shape[2], round(probe_BSE.shape[1] / seconds * 2) / 2, sample_rate)
        self.feature_size, self.frame_rate, _ = facts

    def forward(self, waveforms_BN: Tensor) -> tuple[Tensor, ...]:
        return self._streams(waveforms_BN)

    def _streams(self, waveforms_BN: Tensor) -> tuple[Tensor, ...]:
        waveforms_BN = F.pad(waveforms_BN, (0, self.silence))
        pieces = waveforms_BN.split(self._piece_samples or max(waveforms_BN.shape[1], 1), dim=1)
        heard = [self._hear(piece) for piece in pieces]
        return tuple(torch.cat(parts, dim=1) for parts in zip(*heard, strict=True))

    @torch.no_grad()
    def _hear(self, waveforms_BN: Tensor) -> tuple[Tensor, ...]:
        """The streams of clips that are heard at once."""
        inputs = self._inputs(waveforms_BN)
        found = self.encoder(inputs, output_hidden_states=True)
        states = found.hidden_states
        streams = []
        for layers in self.layers:
            chosen = [found.last_hidden_state if layer == LAST else states[layer] for layer in layers]
            streams.append(self._pooled(torch.stack(chosen).mean(dim=0)))
        return tuple(streams)

    def _inputs(self, waveforms_BN: Tensor) -> Tensor:
        device, dtype = _place_of(self.encoder)
        if self._extractor is None:
            return waveforms_BN.to(device, dtype)
        extract: Any = self._extractor
        rows = [row.cpu().numpy() for row in waveforms_BN]
        made = extract(rows, sampling_rate=self.sample_rate, return_tensors="pt")
        name = "input_features" if "input_features" in made else "input_values"
        given: Tensor = made[name].to(device, dtype)
        return given

    def _pooled(self, vectors_BSE: Tensor) -> Tensor:
        if self.pool == 1:
            return vectors_BSE
        missing = -vectors_BSE.shape[1] % self.pool
        if missing:  # its convolutions lose a vector at the end
            vectors_BSE = torch.cat([vectors_BSE, vectors_BSE[:, -1:].expand(-1, missing, -1)], dim=1)
        return vectors_BSE.unflatten(1, (-1, self.pool)).mean(dim=2)

    def deciding(self) -> dict[str, Any]:
        own = {"layers": [list(one) for one in self.layers], "pool": self.pool, "silence": self.silence}
        return super().deciding() | own

    def settings(self) -> dict[str, Any]:
        return {
            "facts": [self.feature_size, self.frame_rate, self.sample_rate],
            "layers": [list(one) for one in self.layers],
            "pool": self.pool,
            "silence": self.silence,
            "config": self._config,
            "extractor": None if self._extractor is None else self._extractor.to_dict(),
        }

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> TransformersEncoder:
        """Makes it again, with any weights.

        Raises:
            ValueError: if transformers has no such model or extractor.
        """
        config = dict(values["config"])
        model = AutoModel.from_config(AutoConfig.for_model(config.pop("model_type", None), **config))
        size, frame_rate, sample_rate = values["facts"]
        return cls(
            model.eval(),
            None if values["extractor"] is None else _extractor_of(values["extractor"]),
            values["layers"],
            pool=int(values["pool"]),
            silence=int(values["silence"]),
            facts=(int(size), float(frame_rate), int(sample_rate)),
        )


def _place_of(module: Any) -> tuple[torch.device, torch.dtype]:
    """Where a module's inputs belong."""
    first = next(iter(module.parameters()), None) if isinstance(module, nn.Module) else None
    return (torch.device("cpu"), torch.float32) if first is None else (first.device, first.dtype)


def _extractor_of(values: Mapping[str, Any]) -> FeatureExtractionMixin:
    name = str(values.get("feature_extractor_type"))
    found: Any = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, FeatureExtractionMixin)):
        raise ValueError(f"transformers has no feature extractor {name!r}")
    extractor_class: Any = found
    made: FeatureExtractionMixin = extractor_class.from_dict(dict(values))
    return made


def load_encoder(
    role: str, source: str | Path | FrozenEncoder, layers: Sequence[Sequence[int]] | None = None
) -> FrozenEncoder:
    """One of the frozen encoders, from a checkpoint of transformers.

    Args:
        role: `WHISPER` (its encoder's end), `WAVLM` (the mean of layers 6 to 9, of waveforms as they are) or `MUSIC`
            (layers 4 and 11, of two vectors the mean where it gives 50 a second).
        source: a folder or Hub id, or an encoder that is there already.
        layers: others than these: for each stream the hidden states whose mean it is.

    Raises:
        ValueError: if there is none, it lacks these layers, or they are of more or fewer streams than belong to it.
    """
    if isinstance(source, FrozenEncoder):
        return source
    if layers is not None and len(layers) != STREAMS[role]:
        raise ValueError(
            f"layers of the {role} encoder are of {len(layers)} streams, and it must give {STREAMS[role]}: "
            f"{[list(one) for one in layers]}"
        )
    try:
        model = AutoModel.from_pretrained(str(source), dtype=torch.float32, trust_remote_code=False).eval()
        extractor = None
        if role != WAVLM or model.main_input_name != "input_values":
            extractor = AutoFeatureExtractor.from_pretrained(str(source), trust_remote_code=False)
    except (OSError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{role}: {source} holds no audio encoder of transformers: {error}") from error
    if role == WHISPER:
        return TransformersEncoder(model, extractor, layers or ((LAST,),))
    if role == WAVLM:
        silence = WAVLM_SILENCE if extractor is None else 0
        return TransformersEncoder(model, extractor, layers or (WAVLM_LAYERS,), silence=silence)
    layers = layers or tuple((one,) for one in MUSIC_LAYERS)
    plain = TransformersEncoder(model, extractor, layers)
    pool = max(1, round(plain.frame_rate / RATES[MUSIC]))
    return plain if pool == 1 else TransformersEncoder(model, extractor, layers, pool=pool)


def encoder_of(role: str, values: Any, source: Path) -> FrozenEncoder:
    """Makes an encoder of its saved settings, with any weights.

    Raises:
        ValueError: naming the file, if they describe none.
    """
    kind = TransformersEncoder.kind
    if not isinstance(values, Mapping) or values.get("kind") != kind:
        said = values.get("kind") if isinstance(values, Mapping) else values
        raise ValueError(f"{source}: there is no kind of {role} encoder called {said!r}; known is {kind}")
    try:
        return TransformersEncoder.from_settings(values)
    except Exception as error:  # transformers checks fields by errors of huggingface_hub's own
        raise ValueError(f"{source} does not describe the {role} encoder: {' '.join(str(error).split())}") from error


def check_fits(role: str, encoder: FrozenEncoder, feature_size: int) -> FrozenEncoder:
    """Refuses an encoder of another rate or size than the codec was made for.

    Raises:
        ValueError: naming both.
    """
    if encoder.frame_rate != RATES[role]:
        raise ValueError(
            f"the {role} encoder gives {encoder.frame_rate:g} vectors a second, and this codec needs {RATES[role]:g}: "
            "take another one, or the mean of several vectors (pool)"
        )
    if encoder.feature_size != feature_size:
        raise ValueError(
            f"the {role} encoder gives vectors of {encoder.feature_size} numbers, but this codec was made for "
            f"{feature_size}: take the one that it was trained with"
        )
    return encoder


def checked_streams(role: str, encoder: FrozenEncoder, waveforms_BN: Tensor, num_vectors: int) -> list[Tensor]:
    """What an encoder says of waveforms, float32 ``[B, num_vectors, E]`` for each stream.

    The last vector stands for a few that are missing at the end; what is too much is cut.

    Raises:
        ValueError: if it gives something else, naming it.
    """
    given = encoder(waveforms_BN)
    if isinstance(given, Tensor):
        given = (given,)
    streams = list(given) if isinstance(given, tuple | list) else [given]
    if len(streams) != STREAMS[role]:
        raise ValueError(f"the {role} encoder gives {len(streams)} streams of vectors, and {STREAMS[role]} are needed")
    return [_checked(role, encoder, one, len(waveforms_BN), num_vectors) for one in streams]


def _checked(role: str, encoder: FrozenEncoder, found: Any, num_rows: int, num_vectors: int) -> Tensor:
    fits = isinstance(found, Tensor) and found.dim() == 3 and found.is_floating_point()
    if not fits or found.shape[0] != num_rows or found.shape[2] != encoder.feature_size:
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"the {role} encoder gives {what}; it must give floats [{num_rows}, S, {encoder.feature_size}]"
        )
    missing = num_vectors - found.shape[1]
    if missing > TOLERANCE:
        raise ValueError(
            f"the {role} encoder gives {found.shape[1]} vectors where {num_vectors} belong: it has another rate than "
            f"the {encoder.frame_rate:g} Hz that it is said to have"
        )
    if not torch.isfinite(found).all():
        raise ValueError(f"the {role} encoder gives NaN or infinity")
    vectors_BSE = found[:, :num_vectors].float()
    if missing > 0:
        vectors_BSE = torch.cat([vectors_BSE, vectors_BSE[:, -1:].expand(-1, missing, -1)], dim=1)
    return vectors_BSE
