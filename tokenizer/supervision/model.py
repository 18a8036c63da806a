"""The tokenizer under supervision: a text decoder must write what was heard from the quantized frames alone.

UniAudio-Token (arXiv:2605.31521) is trained in two stages: first with ``quantize`` off, then with the quantizer in
place. What is here of `SupervisedModel` holds for StableToken too (``stabletoken.py``).
"""
# Shapes: B clips, M mel bins, F mel frames, T tokens, S text tokens, D feature size, Q figures of a vote.

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from audiollm.tokenizer.checkpoints.tensors import torch_dtype
from audiollm.tokenizer.checkpoints.tokenizer import find_tokenizer, read_config_as
from audiollm.tokenizer.checkpoints.whisper import load_whisper, tensors_of_whisper
from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.encoder.whisper import recompute_layers
from audiollm.tokenizer.modeling import UniAudioTokenizer, UniAudioTokenizerOutput

from .checkpoints import TRAINING_ARCHITECTURE, read_decoder_tensors, read_output_ids, read_text, write_supervised
from .cross_entropy import DEFAULT_CHUNK_SIZE
from .text import SapText
from .text_decoder import SapDecoder, copy_decoder, evenly_spaced, shift_right

Own = TypeVar("Own", bound="SupervisedModel")


@dataclass
class SupervisedOutput:
    """What one pass yields. Sums, not means: divide by the counts of the whole update."""

    text_loss_sum: Tensor  # float32 scalar: cross-entropy summed over targets, in nats
    num_targets: Tensor  # int64 scalar
    quantizer_loss_sum: Tensor  # float32 scalar: the quantizer's loss x num_frames; 0 where it does not count
    num_frames: Tensor  # int64 scalar: valid frames
    encoder_last_hidden_state: Tensor  # [B, T, D], what the decoder reads
    frame_mask: Tensor  # [B, T] bool, True for valid frames
    codes: Tensor | None  # [B, T] int64; None if the quantizer is passed by
    quantization_error: Tensor  # float32 scalar, detached: sum over valid frames of mean over D of (feature - entry)^2
    feature_power: Tensor  # float32 scalar, detached: the same of feature^2
    gate_means: Tensor | None = None  # [B] float32, detached: mean gate of each clip; None without SAE
    vote_sums: Tensor | None = None  # [Q] float32, detached: figures of a vote x num_frames; None without a vote
    text_losses: Tensor | None = None  # [B, 2] float32, detached: text loss and number of targets of each clip
    logits: Tensor | None = None  # [B, S, V], only if asked for


class SupervisedModel(nn.Module):
    """Audio tokenizer and text decoder, trained together; a subclass says which tokenizer, and what its passes yield.

    Args:
        tokenizer: the part that is kept after training.
        decoder: the part that supervises it.
        text: turns text into the decoder's token ids and back; saved with the model if given.
    """

    tokenizer_class: ClassVar[type[Any]]
    config_class: ClassVar[type[UniAudioTokenizerConfig]]
    architecture: ClassVar[str]
    """Name of the class in the published trainer, in ``config.json``."""

    tokenizer: Any

    def __init__(self, tokenizer: Any, decoder: SapDecoder, text: SapText | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.decoder = decoder
        self.text = text

    @abstractmethod
    def encode(self, input_features: Tensor, attention_mask: Tensor | None, *args: Any, **of_quantizer: Any) -> Any:
        """Runs the tokenizer's encoder; what comes out has ``last_hidden_state`` and ``frame_mask``."""

    @abstractmethod
    def _sums(self, encoded: Any, frame_mask_BT: Tensor) -> SupervisedOutput:
        """What a pass yields, all but the decoder's part."""

    @abstractmethod
    def export_tokenizer(self, folder: str | Path) -> None:
        """Writes the tokenizer alone in the released layout."""

    @property
    def quantize(self) -> bool:
        """Whether features are quantized: False in the first stage of training, True in the second; saved."""
        return not self.config.quantizer_bypassed

    @quantize.setter
    def quantize(self, value: bool) -> None:
        self.config.quantizer_bypassed = not value

    @property
    def config(self) -> UniAudioTokenizerConfig:
        """The configuration of both parts."""
        return self.tokenizer.config

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_logits: bool = False,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        **of_quantizer: Any,
    ) -> SupervisedOutput:
        """Hears a batch of clips and computes how well the decoder writes their texts.

        Args:
            input_features: log-mel features, ``[B, M, F]``.
            attention_mask: 1 for valid mel frames, ``[B, F]``; None if all are.
            decoder_input_ids: start token and text, int64 ``[B, S]``, padded on the right; labels shifted right behind
                ``decoder_start_token_id`` if None.
            labels: the next token at each position, int64 ``[B, S]``; -100 where nothing is to be learned.
            return_logits: also return all logits, which are large.
            chunk_size: targets whose logits exist at the same time.
            of_quantizer: what `encode` takes further.

        Raises:
            ValueError: if features, codes or tokens do not fit the model.
        """
        encoded = self.encode(input_features, attention_mask, **of_quantizer)
        hidden_BTD = encoded.last_hidden_state
        frame_mask = encoded.frame_mask
        if frame_mask is None:
            frame_mask = torch.ones(hidden_BTD.shape[:2], dtype=torch.bool, device=hidden_BTD.device)
        output = self._sums(encoded, frame_mask)
        if decoder_input_ids is None and labels is not None:
            start_id = self.config.decoder_start_token_id
            decoder_input_ids = shift_right(labels, start_id, self.config.pad_token_id)
        if decoder_input_ids is None:
            return output
        text_BSD = self.decoder(decoder_input_ids, hidden_BTD, encoded.frame_mask)
        if labels is not None:
            output.text_loss_sum, output.num_targets, output.text_losses = self.decoder.text_loss(
                text_BSD, labels, chunk_size=chunk_size
            )
        if return_logits:
            output.logits = self.decoder.logits(text_BSD)
        return output

    @torch.no_grad()
    def generate(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None,
        start_ids: Tensor,
        *,
        max_new_tokens: int,
        end_id: int | None,
    ) -> list[list[int]]:
        """Writes the likeliest text of each clip, token by token; a batch gives what each clip gives alone.

        Call it in evaluation mode: in training mode dropout is active and the codebook learns.

        Args:
            input_features: log-mel features, ``[B, M, F]``.
            attention_mask: 1 for valid mel frames, ``[B, F]``; None if all are.
            start_ids: start token of the task of each clip, int64 ``[B]``.
            max_new_tokens: stop after so many, or at the decoder's last position.
            end_id: token that ends a text; None never ends one early.

        Returns:
            Ids per clip, without the start token and ``end_id``.
        """
        encoded = self.encode(input_features, attention_mask)
        return self.decoder.generate(
            encoded.last_hidden_state, encoded.frame_mask, start_ids, max_new_tokens=max_new_tokens, end_id=end_id
        )

    def checkpoint_gradients(self, enabled: bool = True) -> None:
        """Recomputes each layer in the backward pass instead of keeping what it computed."""
        recompute_layers(self.tokenizer.encoder.layers, enabled)
        recompute_layers(self.decoder.layers, enabled)

    # ------------------------------------------------- checkpoints, warm start

    @classmethod
    def from_whisper(
        cls: type[Own],
        source: str | Path | nn.Module,
        *,
        quantize_position: int,
        text: SapText | None = None,
        decoder_layers: int | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Own:
        """Puts a Whisper model's encoder into a fresh tokenizer and its decoder beside it.

        Args:
            source: a folder or Hub id of any Whisper model in transformers' layout, or the loaded model.
            quantize_position: layer behind which the quantizer sits.
            text: the text tokenizer; that of ``source`` if None and there is one. The vocabulary grows to its size:
                rows of new start tokens begin as copies of ``<|startoftranscript|>``'s, from which each task then
                departs.
            decoder_layers: keep so many of the decoder's layers, evenly spaced, first and last among them; all if None.
            seed: for all new weights; the global generator is left alone.
            settings: as in the tokenizer's own ``from_whisper``, such as ``encoder_layers`` (the first so many) or
                ``max_target_positions`` (further positions repeat Whisper's from the first).

        Raises:
            ValueError: if ``source`` is no Whisper model or has no decoder, or the settings do not fit it.
        """
        whisper = load_whisper(source)
        if text is None and not isinstance(source, nn.Module):
            text = SapText.from_pretrained(source)
        decoder_tensors = tensors_of_whisper(whisper.state_dict(), "decoder")
        if not decoder_tensors:
            raise ValueError(f"{type(whisper).__name__} has no text decoder; pass a WhisperModel or its folder")
        num_layers = 1 + max(int(name.split(".")[1]) for name in decoder_tensors if name.startswith("layers."))
        kept = evenly_spaced(num_layers, decoder_layers)
        vocab_size = len(decoder_tensors["embed_tokens.weight"])
        settings["vocab_size"] = vocab_size if text is None else max(vocab_size, len(text))
        settings["decoder_layers"] = len(kept)
        tokenizer = cls.tokenizer_class.from_whisper(
            whisper, quantize_position=quantize_position, seed=seed, **settings
        )
        with torch.random.fork_rng(devices=[]):  # so that the caller's own draws do not depend on this one
            torch.manual_seed(seed)
            decoder = SapDecoder(tokenizer.config)
        copy_decoder(decoder_tensors, decoder, kept, text)
        if text is not None:
            text.max_target_positions = tokenizer.config.max_target_positions
        return cls(tokenizer, decoder, text).eval()

    @classmethod
    def from_pretrained(
        cls: type[Own],
        source: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        revision: str | None = None,
        **hub_options: Any,
    ) -> Own:
        """Loads a training checkpoint, of this package or of the published trainer.

        Args:
            source: a folder or Hub id.
            dtype: of the weights; float32 if None. The codebook stays float32.
            device: where to put the model; the CPU if None.
            revision: branch, tag or commit on the Hub.
            hub_options: ``cache_dir``, ``token``, ``local_files_only`` and ``subfolder``, as in transformers.

        Raises:
            NoTextDecoderError: if it holds no text decoder, as an exported tokenizer does not.
            ValueError: if its weights do not fit its configuration, are no numbers, or the file of its output's tokens
                is damaged.
        """
        folder = find_tokenizer(source, revision=revision, **hub_options)
        with torch.device("meta"):  # no memory and no random initialisation for weights about to be replaced
            expected = SapDecoder(read_config_as(cls.config_class, folder)).state_dict()
        tensors = read_decoder_tensors(folder, expected)
        tokenizer = cls.tokenizer_class.from_pretrained(folder, dtype=dtype, decoder=False)
        with torch.device("meta"):
            decoder = SapDecoder(tokenizer.config)
        target = torch_dtype(dtype)
        if target is not None:
            tensors = {name: tensor.to(target) for name, tensor in tensors.items()}
        decoder.load_state_dict(tensors, assign=True)
        model = cls(tokenizer, decoder, read_text(folder))
        output_ids = read_output_ids(folder)
        if output_ids is not None:
            decoder.restrict_output(output_ids)
        return model.to(device or "cpu").eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a training checkpoint in the released layout.

        While the decoder's output is restricted, the whole embedding is written all the same, and the restriction
        beside it.
        """
        write_supervised(
            folder,
            self.config,
            self.tokenizer.state_dict(),
            self.decoder.full_state_dict(),
            dtype=self.tokenizer.dtype,
            text=self.text,
            output_ids=self.decoder.output_ids,
            architecture=self.architecture,
        )


class SupervisedTokenizer(SupervisedModel):
    """UniAudio-Token and the text decoder that trains it.

    Args:
        tokenizer: the part that is kept after training.
        decoder: the part that supervises it.
        text: turns text into the decoder's token ids and back; saved with the model if given.
    """

    tokenizer_class = UniAudioTokenizer
    config_class = UniAudioTokenizerConfig
    architecture = TRAINING_ARCHITECTURE
    tokenizer: UniAudioTokenizer

    def encode(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None,
        *,
        example_ids: Tensor | None = None,
    ) -> UniAudioTokenizerOutput:
        """Runs the tokenizer's encoder, with or without its quantizer as the stage demands.

        Args:
            input_features: log-mel features, ``[B, M, F]``.
            attention_mask: 1 for valid mel frames, ``[B, F]``; None if all are.
            example_ids: place of each clip in the update, int64 ``[B]``; needed in training if
                ``tokenizer.codebook.deferred``.
        """
        output: UniAudioTokenizerOutput = self.tokenizer(
            input_features, attention_mask, quantize=self.quantize, example_ids=example_ids
        )
        return output

    def _sums(self, encoded: UniAudioTokenizerOutput, frame_mask_BT: Tensor) -> SupervisedOutput:
        features_BTD, hidden_BTD = encoded.pre_quantizer_hidden, encoded.last_hidden_state
        assert features_BTD is not None
        assert hidden_BTD is not None
        num_frames = frame_mask_BT.sum()
        zero = hidden_BTD.new_zeros((), dtype=torch.float32)
        quantizer_loss, error = zero, zero
        if encoded.quantizer_loss is not None and self.config.use_commit_loss:
            # A mean over this pass's frames: a sum again, so that passes of any sizes add up to their update's mean.
            quantizer_loss = encoded.quantizer_loss * num_frames
        if encoded.squared_error is not None:
            error = (encoded.squared_error * frame_mask_BT).sum()
        return SupervisedOutput(
            text_loss_sum=zero,
            num_targets=num_frames.new_zeros(()),
            quantizer_loss_sum=quantizer_loss,
            num_frames=num_frames,
            encoder_last_hidden_state=hidden_BTD,
            frame_mask=frame_mask_BT,
            codes=encoded.codes,
            quantization_error=error,
            feature_power=(features_BTD.detach().float().square().mean(dim=-1) * frame_mask_BT).sum(),
            gate_means=encoded.gate_means,
        )

    def export_tokenizer(self, folder: str | Path) -> None:
        """Writes the tokenizer alone in the released layout: no decoder, no layers behind the quantizer.

        Raises:
            ValueError: if the model was trained without its quantizer, so that its codes would mean nothing.
        """
        if not self.quantize:
            raise ValueError(
                "this model was trained without a quantizer (quantized: false); train the quantized stage from it first"
            )
        self.tokenizer.export_released(folder)
