"""`SpeechTokenizer`: an EnCodec-type encoder and decoder around a residual quantizer whose first codes are semantic."""
# Shapes: B clips, K codebooks, T frames, N samples, D feature size, S semantic size.

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from audiollm.tokenizer.base import Codes
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.encoder.encoding import in_evaluation
from audiollm.tokenizer.kinds import CONFIG, WEIGHTS, kind_named
from audiollm.tokenizer.layers.seanet import SeanetDecoder, SeanetEncoder, SeanetSizes, old_weight_norm
from audiollm.tokenizer.quantizer.rvq import ResidualQuantizer
from audiollm.tokenizer.signal.resampling import check_sample_rate
from audiollm.tokenizer.zoo.codec import CodecTokenizer, own_settings
from audiollm.tokenizer.zoo.settings import require_few, require_some, settings_as

TRAINING_BUFFERS = ("inited", "cluster_size", "embed_avg")
"""Last parts of the names of what released codebooks keep beside their entries."""


@dataclass(frozen=True, kw_only=True)
class SpeechTokenizerConfig:
    """Sizes, by the keys of the released ``config.json``."""

    n_filters: int
    strides: tuple[int, ...]
    """From the features to the waveform."""
    dimension: int
    """D."""
    semantic_dimension: int
    """S, size of what the first codebook was taught to say."""
    codebook_size: int
    n_q: int
    """K."""
    sample_rate: int
    """Hz."""
    bidirectional: bool = False
    dilation_base: int = 2
    residual_kernel_size: int = 3
    n_residual_layers: int = 1
    lstm_layers: int = 2
    activation: str = "ELU"
    encoder_only: bool = False
    """Ours: whether there is no decoder."""

    def __post_init__(self) -> None:
        require_some(self, "n_filters", "dimension", "semantic_dimension", "codebook_size", "n_q", "sample_rate")
        require_few(self, "n_q", "n_residual_layers", "lstm_layers")
        check_sample_rate(self.sample_rate)
        self.seanet  # noqa: B018 - refuses what it does not know

    @property
    def seanet(self) -> SeanetSizes:
        """Of the encoder and the decoder, which reads in one direction in any case."""
        return SeanetSizes(
            num_filters=self.n_filters,
            strides=self.strides,
            feature_size=self.dimension,
            num_residual_layers=self.n_residual_layers,
            residual_kernel_size=self.residual_kernel_size,
            dilation_base=self.dilation_base,
            num_lstm_layers=self.lstm_layers,
            is_bidirectional=self.bidirectional,
            activation=self.activation,
        )


class SpeechTokenizer(CodecTokenizer):
    """Codes of K codebooks at one rate; the first one's alone say what is said, the others how it sounds.

    `encode` and `decode` take a part of the codebooks too, by ``n_q`` and ``st`` as its authors call them.
    """

    kind_name = "speechtokenizer"
    decoding = ("decoder.", "transform.")
    fills_last_frame = False  # it reflects a clip at its own end

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SeanetEncoder(config.seanet)
        self.quantizer = ResidualQuantizer(config.n_q, config.codebook_size, config.dimension)
        same_size = config.dimension == config.semantic_dimension
        self.transform = nn.Identity() if same_size else nn.Linear(config.dimension, config.semantic_dimension)
        self.decoder = None if config.encoder_only else SeanetDecoder(config.seanet)

    # ------------------------------------------------------------------- facts

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def frame_samples(self) -> int:
        return self.config.seanet.frame_samples

    @property
    def num_codebooks(self) -> int:
        return self.config.n_q

    @property
    def codebook_size(self) -> int:
        return self.config.codebook_size

    @property
    def can_decode(self) -> bool:
        return self.decoder is not None

    @property
    def decodes_first_codebooks(self) -> bool:
        return True

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    def deciding_settings(self) -> dict[str, Any]:
        without = ("semantic_dimension", "encoder_only")
        return {name: value for name, value in self.settings().items() if name not in without}

    # ------------------------------------------------------------------ encode

    def encode(
        self,
        waveforms: Sequence[Tensor] | Tensor,
        sample_rate: int,
        *,
        batch_size: int = 16,
        return_features: bool = False,
        n_q: int | None = None,
        st: int = 0,
    ) -> Codes:
        """Turns waveforms into codes, as `CodecTokenizer.encode`.

        Args:
            waveforms: as there.
            sample_rate: as there.
            batch_size: as there.
            return_features: as there.
            n_q: codebook behind the last one whose codes are wanted; None: K.
            st: first codebook whose codes are wanted; it quantizes the features themselves, not what those before it
                would leave over.

        Raises:
            ValueError: as there, or if there are no such codebooks.
        """
        stop = self.num_codebooks if n_q is None else n_q
        if not 0 <= st < stop <= self.num_codebooks:
            raise ValueError(
                f"st={st}, n_q={n_q}: choose 0 <= st < n_q <= {self.num_codebooks}, the codebooks there are"
            )
        model = in_evaluation(self)
        compute = model.encode_batch_with_features if return_features else model.encode_batch
        compute = partial(compute, n_q=stop, st=st)
        return self._encode(waveforms, sample_rate, batch_size, compute, stop - st, return_features)

    def encode_batch(self, waveforms_BN: Tensor, n_q: int | None = None, st: int = 0) -> Tensor:
        return self.encode_batch_with_features(waveforms_BN, n_q, st)[0]

    def encode_batch_with_features(
        self, waveforms_BN: Tensor, n_q: int | None = None, st: int = 0
    ) -> tuple[Tensor, Tensor]:
        features_BTD = self.features(waveforms_BN)
        stop = self.num_codebooks if n_q is None else n_q
        return self.quantizer.encode(features_BTD, start=st, count=stop - st), features_BTD

    def features(self, waveforms_BN: Tensor) -> Tensor:
        """What the quantizer sees of equally long waveforms, ``[B, T, D]``."""
        features_BDT: Tensor = self.encoder(waveforms_BN[:, None].to(self.dtype))
        return features_BDT.transpose(1, 2)

    def semantic_features(self, codes_BKT: Tensor) -> Tensor:
        """What the first codebook's codes say of the teacher's features, ``[B, T, S]``; the others do not count."""
        said: Tensor = self.transform(self.quantizer.decode(codes_BKT[:, :1]).to(self.dtype))
        return said

    # ------------------------------------------------------------------ decode

    def decode(
        self,
        codes: Codes | Tensor | Sequence[Any],
        speaker: Tensor | None = None,
        prompt: Any = None,
        *,
        batch_size: int = 16,
        st: int = 0,
    ) -> list[Tensor]:
        """Turns codes into waveforms, as `CodecTokenizer.decode`.

        Args:
            codes: as there, of all codebooks from ``st`` on or the first of them.
            speaker: None.
            prompt: None.
            batch_size: as there.
            st: codebook of the first row of the codes.

        Raises:
            ValueError: as there, or if there is no such codebook.
        """
        self._refuse_voice(speaker, prompt)
        if not 0 <= st < self.num_codebooks:
            raise ValueError(f"st={st}: there are codebooks 0 to {self.num_codebooks - 1}")
        compute = partial(in_evaluation(self).decode_batch, st=st)
        return self._decode(codes, batch_size, compute, self.codebook_sizes[st:])

    def decode_batch(self, codes_BKT: Tensor, st: int = 0) -> Tensor:
        assert self.decoder is not None
        entries_BTD = self.quantizer.decode(codes_BKT, start=st).to(self.dtype)
        waveforms_B1N: Tensor = self.decoder(entries_BTD.transpose(1, 2))
        return waveforms_B1N[:, 0]

    # ------------------------------------------------------------------- files

    def released_names(self) -> dict[str, str]:
        names = {name: name for name in self.weights()}
        for part in ("encoder", "decoder"):
            module = getattr(self, part)
            if module is not None:
                names |= {f"{part}.{own}": f"{part}.{name}" for own, name in module.released_names().items()}
        for number in range(self.num_codebooks):
            names[f"quantizer.codebooks.{number}.weight"] = f"quantizer.vq.layers.{number}._codebook.embed"
        return names

    @classmethod
    def read(cls, folder: Path, *, encoder_only: bool = False) -> SpeechTokenizer:
        if not (folder / CONFIG).is_file():
            raise ValueError(f"{folder} holds no {CONFIG}, which says the sizes of a SpeechTokenizer: put it there")
        values = read_json_object(folder / CONFIG)
        is_own = values.get("model_type") == kind_named(cls.kind_name).own_model_type
        config = settings_as(SpeechTokenizerConfig, own_settings(values), folder / CONFIG, may_hold_more=not is_own)
        if encoder_only:
            config = dataclasses.replace(config, encoder_only=True)

        def keep(name: str) -> bool:
            if config.encoder_only and name.startswith("decoder."):
                return False
            return is_own or name.rpartition(".")[2] not in TRAINING_BUFFERS

        make = partial(cls, config)
        path = folder / WEIGHTS if is_own else _released_weights(folder)
        return cls.filled(make, path, released=not is_own, keep=keep, spelling=str if is_own else old_weight_norm)


def _released_weights(folder: Path) -> Path:
    """The one file of weights in a folder.

    Raises:
        ValueError: if there is none, or there are several.
    """
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    found = sorted([*folder.glob("*.pt"), *folder.glob("*.pth")])
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} holds {len(found)} files of weights ({names}): leave the one that is meant")
    raise ValueError(f"{folder} holds no weights: put {WEIGHTS} or SpeechTokenizer.pt there, beside {CONFIG}")
