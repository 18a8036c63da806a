"""Any other frozen encoder as a teacher: our tokenizers' hidden states, audio encoders of transformers, a module."""
# Shapes: B pieces, N samples, T tokens, S vectors as the encoder gives them, E feature size.

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, FeatureExtractionMixin, PreTrainedModel

from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.losatok.configuration import MARGIN, PIECE_TOKENS, SAMPLE_RATE, TOKEN_SAMPLES
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.signal.resampling import check_sample_rate, resample

from .base import Teacher

TOLERANCE = 3  # vectors that an encoder may lose or gain at the ends of a piece
_PROBE_SECONDS = 10  # of silence, by which an encoder tells its rate


class PluggedTeacher(Teacher):
    """A frozen encoder of waveforms, whose vectors are brought to one per token by linear interpolation.

    Args:
        encoder: from waveforms ``[B, N]`` at its rate to vectors ``[B, S, E]``, alone or as the first of a tuple, or as
            ``last_hidden_state``. If it is a module, its weights are the teacher's.
        feature_size: E.
        frame_rate: S per second, in Hz.
        sample_rate: of the waveforms that it takes, in Hz.
        piece_tokens: as `Teacher`.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Any],
        feature_size: int,
        frame_rate: float,
        sample_rate: int = SAMPLE_RATE,
        piece_tokens: int = PIECE_TOKENS,
    ) -> None:
        super().__init__(feature_size, piece_tokens)
        if isinstance(frame_rate, bool) or not isinstance(frame_rate, int | float) or not 0 < frame_rate < math.inf:
            raise ValueError(f"frame_rate={frame_rate!r} of the teacher: use a positive number of vectors per second")
        self.encoder = encoder
        self.frame_rate = frame_rate
        self.sample_rate = check_sample_rate(sample_rate)

    def forward(self, extended_BN: Tensor, loudest_B: Tensor | None = None) -> Tensor:
        waveforms_BN = extended_BN[:, MARGIN : extended_BN.shape[1] - MARGIN]
        num_tokens = -(-waveforms_BN.shape[1] // TOKEN_SAMPLES)
        # A piece ends at its last mel frame, which is a hop short of its tokens' end; the margin holds what follows.
        waveforms_BN = extended_BN[:, MARGIN : MARGIN + num_tokens * TOKEN_SAMPLES]
        if self.sample_rate != SAMPLE_RATE:
            waveforms_BN = torch.stack([resample(row, SAMPLE_RATE, self.sample_rate) for row in waveforms_BN])
        found_BSE = self._checked(self.vectors(waveforms_BN), len(extended_BN), num_tokens)
        if found_BSE.shape[1] == num_tokens:
            return found_BSE
        return F.interpolate(found_BSE.transpose(1, 2), size=num_tokens, mode="linear").transpose(1, 2)

    def vectors(self, waveforms_BN: Tensor) -> Any:
        """What the encoder says of waveforms at its own rate, in the dtype that its weights have."""
        weights = self.encoder.parameters() if isinstance(self.encoder, nn.Module) else ()
        dtype = next((one.dtype for one in weights if one.is_floating_point()), waveforms_BN.dtype)
        return self.encoder(waveforms_BN.to(dtype))

    def _checked(self, given: Any, num_rows: int, num_tokens: int) -> Tensor:
        if isinstance(given, tuple | list) and given:
            given = given[0]
        found = getattr(given, "last_hidden_state", given)
        if not isinstance(found, Tensor) or found.dim() != 3 or not found.is_floating_point():
            what = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"the teacher gives {what}; it must give float features [B, T, {self.feature_size}], alone or as the "
                "first of a tuple"
            )
        if found.shape[0] != num_rows or found.shape[2] != self.feature_size:
            raise ValueError(
                f"the teacher gives features of shape {list(found.shape)} for {num_rows} clips, but its feature_size "
                f"is {self.feature_size}: they do not fit what is made for it"
            )
        expected = num_tokens * TOKEN_SAMPLES / SAMPLE_RATE * self.frame_rate
        if not found.shape[1] or abs(found.shape[1] - expected) > TOLERANCE:
            raise ValueError(
                f"the teacher gives {found.shape[1]} vectors for {num_tokens * TOKEN_SAMPLES / SAMPLE_RATE:g} s, which "
                f"is not the {self.frame_rate:g} Hz that it is said to give ({expected:.0f} of them): correct "
                "frame_rate or sample_rate"
            )
        return found.float()


class UniAudioTeacher(PluggedTeacher):
    """The hidden states of one of our own tokenizers: what its quantizer sees, or would see."""

    kind = "uniaudio"

    def __init__(self, tokenizer: UniAudioTokenizer) -> None:
        rate = tokenizer.frame_rate
        super().__init__(tokenizer, tokenizer.config.d_model, rate, tokenizer.sample_rate)

    def vectors(self, waveforms_BN: Tensor) -> Tensor:
        tokenizer: UniAudioTokenizer = self.encoder  # type: ignore[assignment]  # a module is a callable, too
        features = tokenizer.encode(list(waveforms_BN), self.sample_rate, return_features=True).features
        assert features is not None
        return torch.stack(features)

    def settings(self) -> dict[str, Any]:
        tokenizer: UniAudioTokenizer = self.encoder  # type: ignore[assignment]
        return {"config": tokenizer.config.to_dict()}

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> UniAudioTeacher:
        """Makes it again, with any weights."""
        return cls(UniAudioTokenizer(UniAudioTokenizerConfig.from_dict(dict(values["config"]))))


class TransformersTeacher(PluggedTeacher):
    """An audio encoder of transformers: its last hidden states.

    Of a model with a decoder, such as Whisper, the encoder is taken.

    Args:
        model: the model.
        extractor: makes its inputs of waveforms.
        size_and_rate: size of its vectors, and how many there are per second; None: tried out.
    """

    kind = "transformers"

    def __init__(
        self, model: PreTrainedModel, extractor: FeatureExtractionMixin, size_and_rate: tuple[int, float] | None = None
    ) -> None:
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        sample_rate = int(vars(extractor)["sampling_rate"])
        # What it pads everything to, as Whisper's does; None: nothing.
        padded_seconds = getattr(extractor, "chunk_length", None) or None
        if size_and_rate is None:
            size_and_rate = _tried_out(encoder, extractor, sample_rate, padded_seconds)
        # No piece is longer than what the extractor pads to: it would cut the rest off.
        longest = PIECE_TOKENS if padded_seconds is None else int(padded_seconds * SAMPLE_RATE / TOKEN_SAMPLES)
        super().__init__(encoder, *size_and_rate, sample_rate, min(PIECE_TOKENS, longest))
        self._padded_seconds = padded_seconds
        self._extractor = extractor
        self._config = model.config.to_dict()

    def vectors(self, waveforms_BN: Tensor) -> Tensor:
        found_BSE = _hidden_states(self.encoder, self._extractor, waveforms_BN, self.sample_rate)
        if self._padded_seconds is None:
            return found_BSE
        return found_BSE[:, : round(waveforms_BN.shape[1] / self.sample_rate * self.frame_rate)]

    def settings(self) -> dict[str, Any]:
        facts = {"feature_size": self.feature_size, "frame_rate": self.frame_rate}
        return {**facts, "config": self._config, "extractor": self._extractor.to_dict()}

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> TransformersTeacher:
        """Makes it again, with any weights.

        Raises:
            ValueError: if transformers has no such model or extractor.
        """
        config, extractor = dict(values["config"]), dict(values["extractor"])
        name = str(extractor.get("feature_extractor_type"))
        found = getattr(transformers, name, None)
        if not (isinstance(found, type) and issubclass(found, FeatureExtractionMixin)):
            raise ValueError(f"transformers has no feature extractor {name!r}")
        extractor_class: Any = found
        model_type = config.pop("model_type", None)
        model = AutoModel.from_config(AutoConfig.for_model(model_type, **config))
        facts = (int(values["feature_size"]), float(values["frame_rate"]))
        return cls(model.eval(), extractor_class.from_dict(extractor), facts)

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str) -> TransformersTeacher:
        """Loads a model of transformers and its feature extractor.

        Raises:
            OSError: if there is none, in the words of transformers.
        """
        model = AutoModel.from_pretrained(path_or_hub_id, dtype=torch.float32, trust_remote_code=False)
        return cls(model.eval(), AutoFeatureExtractor.from_pretrained(path_or_hub_id, trust_remote_code=False))


def _tried_out(encoder: Any, extractor: Any, sample_rate: int, padded_seconds: float | None) -> tuple[int, float]:
    """Size of an encoder's vectors, and how many there are per second.

    Raises:
        ValueError: if it does not give one for every so many samples.
    """

    def vectors(seconds: int) -> Tensor:
        found = _hidden_states(encoder, extractor, torch.zeros(1, seconds * sample_rate), sample_rate)
        if found.dim() != 3:
            raise ValueError(f"it gives hidden states of shape {list(found.shape)}; a teacher gives [B, T, features]")
        return found

    whole = vectors(_PROBE_SECONDS)
    rate: float = whole.shape[1] / (padded_seconds or _PROBE_SECONDS)
    half, wanted = vectors(_PROBE_SECONDS // 2).shape[1], rate * (_PROBE_SECONDS // 2)
    if padded_seconds is None and abs(half - wanted) > TOLERANCE:
        raise ValueError(
            f"it gives {whole.shape[1]} vectors for {_PROBE_SECONDS} s and {half} for {_PROBE_SECONDS // 2} s; a "
            "teacher gives one for every so many samples"
        )
    return whole.shape[2], rate


def _hidden_states(encoder: Any, extractor: Any, waveforms_BN: Tensor, sample_rate: int) -> Tensor:
    """The last hidden states of equally long waveforms."""
    rows = [row.cpu().numpy() for row in waveforms_BN]
    inputs = extractor(rows, sampling_rate=sample_rate, return_tensors="pt")
    name = "input_features" if "input_features" in inputs else "input_values"
    with torch.no_grad():
        given = encoder(inputs[name].to(encoder.device, encoder.dtype))
    found = getattr(given, "last_hidden_state", None)
    if not isinstance(found, Tensor):
        raise ValueError(f"a {type(encoder).__name__} gives no last_hidden_state of sound")
    return found
