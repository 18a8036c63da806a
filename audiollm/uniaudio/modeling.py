"""One autoregressive LM over eight streams of audio codes and one of text (UniAudio 2.0, arXiv 2602.04683).

The layers of a pretrained text LLM stand in the middle as they are. At audio positions an expert in front of them makes
one vector of a frame's codes, one behind them prepares what a small local decoder writes the next frame's codes from.
Text passes both by: before any training, what the model says of text is what the text LLM says, bit for bit.
"""
# Shapes: B rows, S steps, K audio streams (K + 1 with that of text, the last), D width of the text LLM, E width of the
# local decoder, A audio vocabulary of a stream, V text vocabulary, N frames that are targets.

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from audiollm.loading import load_causal_lm, refuse_quantized
from audiollm.tokenizer.checkpoints.tensors import check_loaded

from .cache import UniAudioCache
from .checks import check_attention_mask, check_inputs, check_loss_mask, check_positions
from .configuration import UniAudioLMConfig
from .generation import UniAudioGeneration, generate, stream
from .losses import audio_loss, text_loss
from .released import read_released
from .settings import GenerationSettings, StreamedFrame, StreamedText
from .special_ids import SpecialIds
from .stacks import check_family, config_like, make_stack, make_text_llm


@dataclass
class UniAudioLMOutput(ModelOutput):
    """What `UniAudioLM.forward` returns."""

    loss: Tensor | None = None
    """Weighted sum of the two losses; only with a loss mask, as all that follows but the text logits."""
    text_logits: Tensor | None = None
    """``[B, S, V]``: of the text token of the next step."""
    audio_logits: Tensor | None = None
    """``[N, K, A]``: of the frames that are targets, row by row."""
    audio_labels: Tensor | None = None
    """``[N, K]``"""
    audio_loss_mask: Tensor | None = None
    """``[N, K]``"""
    text_loss: Tensor | None = None
    audio_loss: Tensor | None = None
    text_accuracy: Tensor | None = None
    audio_accuracies: Tensor | None = None
    """``[K]``, one per stream."""
    last_hidden_state: Tensor | None = None
    """``[B, S, D]``, behind the generation expert."""
    past_key_values: UniAudioCache | None = None


class UniAudioLM(PreTrainedModel):
    """The multi-stream LM.

    Steps are rows of K + 1 ids: K audio codes, then a text token; ``stream_mask`` says which of them are there. Codes
    of reconstruction tokens are counted behind those of reasoning tokens; `audiollm.uniaudio.layout` builds such rows.

    Args:
        config: its sizes.
        text_llm: the causal LM to build around, which is used as it is; None: an untrained one.
    """

    config_class = UniAudioLMConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: UniAudioLMConfig, text_llm: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        num_streams, width = config.num_audio_streams, config.text_config.hidden_size
        local_width = config.local_decoder_config.hidden_size
        self.audio_embeddings = nn.Embedding(num_streams * config.audio_vocab_size, width)
        self.understanding_expert = make_stack(config.understanding_expert_config)
        self.generation_expert = make_stack(config.generation_expert_config)
        self.projection = nn.Linear(width, local_width, bias=False)
        self.local_decoder = make_stack(config.local_decoder_config)
        self.audio_head = nn.Parameter(torch.empty(num_streams, local_width, config.audio_vocab_size))
        if text_llm is None:
            text_llm = make_text_llm(config.text_config)
        else:
            _keep_weights(text_llm)
        self.text_llm = text_llm
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.normal_(self.audio_head, mean=0.0, std=self.config.initializer_range)

    # Construction

    @classmethod
    def from_text_llm(
        cls,
        text_llm: PreTrainedModel | str | os.PathLike[str],
        *,
        reasoning_codebook_size: int = 4096,
        reconstruction_codebook_size: int = 8192,
        num_audio_streams: int = 8,
        num_understanding_layers: int = 3,
        num_generation_layers: int = 2,
        local_decoder: dict[str, Any] | None = None,
        text_pad: int | None = None,
        text_parts: dict[str, tuple[int, int]] | None = None,
        seed: int = 0,
        dtype: torch.dtype | str = "auto",
    ) -> UniAudioLM:
        """Builds the LM around a text LLM, whose weights stay as they are: before training, its text logits are equal.

        Args:
            text_llm: a causal LM of Llama, Qwen2, Qwen3 or Mistral, or the folder or Hub id it is loaded from.
            reasoning_codebook_size: codes of a reasoning stream; three marks follow them.
            reconstruction_codebook_size: codes of a reconstruction stream; three marks follow them.
            num_audio_streams: codes of a frame.
            num_understanding_layers: of the expert in front of the text LLM.
            num_generation_layers: of the expert behind it.
            local_decoder: sizes in which the local decoder differs from the text LLM, such as ``hidden_size``; None:
                four layers like its own.
            text_pad: text id that fills gaps and stands for a prompt left out; None: the text LLM's own.
            text_parts: start and end mark of each kind of text, from ids of the text LLM's vocabulary; None: none, so
                that only plain text can be laid out.
            seed: of the new weights.
            dtype: of a text LLM that is loaded; "auto": as stored. New weights have that of the text LLM.

        Raises:
            ValueError: if the text LLM is of another family, or a size or mark does not fit.
        """
        if not isinstance(text_llm, PreTrainedModel):
            text_llm = load_causal_lm(text_llm, dtype=dtype)
        check_family(text_llm.config, "the text LLM")
        refuse_quantized(text_llm, text_llm.name_or_path or "the text LLM", "built into a UniAudioLM")
        if text_llm.get_output_embeddings() is None:
            raise ValueError(f"{type(text_llm).__name__} is no causal LM: it has no head that writes text")
        text_config = text_llm.config
        marks = _marks_behind(reasoning_codebook_size, reconstruction_codebook_size)
        pad = text_pad if text_pad is not None else text_config.pad_token_id
        config = UniAudioLMConfig(
            text_config=text_config,
            understanding_expert_config=config_like(text_config, num_hidden_layers=num_understanding_layers),
            generation_expert_config=config_like(text_config, num_hidden_layers=num_generation_layers),
            local_decoder_config=config_like(text_config, **{"num_hidden_layers": 4, **(local_decoder or {})}),
            num_audio_streams=num_audio_streams,
            reasoning_vocab_size=reasoning_codebook_size + 3,
            reconstruction_vocab_size=reconstruction_codebook_size + 3,
            special_ids=SpecialIds.from_dict({**marks, "text_pad": pad, "text_parts": text_parts or {}}).to_dict(),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls._from_config(config, dtype=text_llm.dtype, text_llm=text_llm)
        for name, child in model.named_children():
            if name != "text_llm":
                child.to(text_llm.device)
        model.audio_head.data = model.audio_head.data.to(text_llm.device)
        model.train(text_llm.training)
        return model

    @classmethod
    def from_released(cls, path: str | os.PathLike[str], config: UniAudioLMConfig) -> UniAudioLM:
        """Loads weights under the names of the published code, from ``.safetensors`` or a checkpoint of torch.

        Args:
            path: the file.
            config: its sizes, which the file does not tell.

        Raises:
            ValueError: listing weights that are missing, unknown or of another shape.
        """
        model = cls(config)
        tensors = read_released(Path(path), model.state_dict(), config)
        model.load_state_dict(tensors)
        return model.eval()

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str | os.PathLike[str], *arguments: Any, **options: Any) -> Any:
        """Loads what `save_pretrained` wrote; arguments and options are those of transformers.

        Raises:
            ValueError: naming weights that are missing, unexpected, of another shape or no numbers.
        """
        wants_report = options.pop("output_loading_info", False)
        model, report = super().from_pretrained(path_or_hub_id, *arguments, output_loading_info=True, **options)
        check_loaded(model, report, os.fspath(path_or_hub_id))
        return (model, report) if wants_report else model

    def get_input_embeddings(self) -> nn.Module:
        """The text LLM's table of words."""
        return self.text_llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The text LLM's head."""
        return self.text_llm.get_output_embeddings()

    # Computing

    def forward(
        self,
        input_ids: Tensor,
        stream_mask: Tensor,
        loss_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: UniAudioCache | None = None,
        use_cache: bool = False,
    ) -> UniAudioLMOutput:
        """Predicts the next step of each step; with a loss mask also the codes, and how wrong both are.

        Args:
            input_ids: int64 ``[B, S, K + 1]``, the text token last; ids that are not there may be anything.
            stream_mask: which ids are there, bool or 0/1 ``[B, S, K + 1]``.
            loss_mask: which ids are learned, as the step before them predicts them; of the same shape.
            attention_mask: which steps may be looked at, 0/1 ``[B, S]`` (with caches: of all steps so far); needed for
                rows padded on the left. None: all earlier steps, as the published code has it.
            position_ids: of the steps, int64 ``[B, S]``; where they start anew, so does a sequence of its own, which
                sees none of those before it in the row. None: they count on.
            past_key_values: of the steps before these.
            use_cache: whether to keep these, too; made if there are none.

        Returns:
            Logits, and losses if asked for.

        Raises:
            ValueError: if shapes do not fit, or an id is outside its vocabulary.
        """
        stream_mask = check_inputs(input_ids, stream_mask, self.config)
        if use_cache and past_key_values is None:
            past_key_values = UniAudioCache.empty(self.config)
        hidden = self.hidden_states(input_ids, stream_mask, attention_mask, past_key_values, position_ids)
        output = UniAudioLMOutput(
            text_logits=self.text_llm.get_output_embeddings()(hidden),
            last_hidden_state=hidden,
            past_key_values=past_key_values,
        )
        if loss_mask is not None:
            self._add_losses(output, input_ids, stream_mask, check_loss_mask(loss_mask, stream_mask))
        return output

    def hidden_states(
        self,
        input_ids: Tensor,
        stream_mask: Tensor,
        attention_mask: Tensor | None,
        caches: UniAudioCache | None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """What text and codes of the next steps are read from, ``[B, S, D]``; arguments as of `forward`, checked."""
        past = 0 if caches is None else caches.get_seq_length()
        options = self._attention_options(attention_mask, position_ids, past, input_ids)
        # A stack keeps its own cache: its layers are fewer, and other vectors pass them.
        understanding, text, generation = (
            (None, None, None) if caches is None else (caches.understanding, caches.text, caches.generation)
        )
        is_audio = stream_mask[..., :-1].any(-1, keepdim=True)
        is_text = stream_mask[..., -1:]
        audio = self.understanding_expert(
            inputs_embeds=self._embed_frames(input_ids, stream_mask), past_key_values=understanding, **options
        ).last_hidden_state
        words = self.get_input_embeddings()(input_ids[..., -1].where(is_text[..., 0], 0))
        # Chosen, not multiplied: where there is text alone, not even a NaN of an expert gets into it. A step with
        # neither is zero, one with both their sum.
        nothing = torch.zeros((), dtype=words.dtype, device=words.device)
        inputs = torch.where(is_text, words, nothing) + torch.where(is_audio, audio, nothing)
        hidden = self.text_llm.base_model(inputs_embeds=inputs, past_key_values=text, **options).last_hidden_state
        # Experts see every position, with zeros for text: zeros take their share of the attention.
        audio = self.generation_expert(
            inputs_embeds=torch.where(is_audio, hidden, nothing), past_key_values=generation, **options
        ).last_hidden_state
        return torch.where(is_audio, audio, nothing) + torch.where(is_text, hidden, nothing)

    def embed_codes(self, codes: Tensor, stream: int) -> Tensor:
        """Vectors of codes of one stream, ``[..., D]``."""
        return self.audio_embeddings(codes + stream * self.config.audio_vocab_size)

    def stream_logits(self, hidden: Tensor, stream: int) -> Tensor:
        """Logits ``[B, A]`` of the codes of one stream, from the local decoder's output ``[B, E]``."""
        return hidden @ self.audio_head[stream]

    def frame_logits(self, hidden_ND: Tensor, codes_NK: Tensor) -> Tensor:
        """Logits of all codes of frames, each code being told those before it.

        Args:
            hidden_ND: hidden states of the steps before the frames, ``[N, D]``.
            codes_NK: the frames, int64 ``[N, K]``; the last code is not looked at.

        Returns:
            ``[N, K, A]``
        """
        if not len(codes_NK):  # all weights stay in the graph, as distributed training wants it
            frame = codes_NK.new_zeros(1, codes_NK.shape[1])
            return self.frame_logits(hidden_ND.new_zeros(1, hidden_ND.shape[1]), frame)[:0]
        earlier = codes_NK[:, :-1]
        offsets = torch.arange(earlier.shape[1], device=earlier.device) * self.config.audio_vocab_size
        sequence = torch.cat((hidden_ND[:, None], self.audio_embeddings(earlier + offsets)), 1)
        written = self.local_decoder(inputs_embeds=self.projection(sequence), use_cache=False).last_hidden_state
        return torch.einsum("nke,kea->nka", written, self.audio_head)

    def _embed_frames(self, input_ids: Tensor, stream_mask: Tensor) -> Tensor:
        codes, mask = input_ids[..., :-1], stream_mask[..., :-1]
        offsets = torch.arange(codes.shape[-1], device=codes.device) * self.config.audio_vocab_size
        vectors = self.audio_embeddings(codes.where(mask, 0) + offsets)
        return (vectors * mask[..., None].to(vectors.dtype)).sum(-2)

    def _attention_options(
        self, attention_mask: Tensor | None, position_ids: Tensor | None, past: int, input_ids: Tensor
    ) -> dict[str, Any]:
        # Without a cache of ours, none is made: those of the stacks would be thrown away.
        options: dict[str, Any] = {"use_cache": False}
        if position_ids is not None:
            check_positions(position_ids, input_ids, alone=attention_mask is None and not past)
            return {**options, "position_ids": position_ids}
        if attention_mask is None:
            return options
        attention_mask = check_attention_mask(attention_mask, past, input_ids)
        positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, past:]
        return {**options, "attention_mask": attention_mask, "position_ids": positions}

    def _add_losses(self, output: UniAudioLMOutput, input_ids: Tensor, stream_mask: Tensor, loss_mask: Tensor) -> None:
        assert output.text_logits is not None
        assert output.last_hidden_state is not None
        config = self.config
        targets, learned = input_ids[:, 1:], loss_mask[:, 1:]
        output.text_loss, output.text_accuracy = text_loss(
            output.text_logits[:, :-1], targets[..., -1], learned[..., -1]
        )
        is_frame = stream_mask[:, 1:, :-1].any(-1)
        output.audio_labels, output.audio_loss_mask = targets[is_frame][:, :-1], learned[is_frame][:, :-1]
        output.audio_logits = self.frame_logits(output.last_hidden_state[:, :-1][is_frame], output.audio_labels)
        output.audio_loss, output.audio_accuracies = audio_loss(
            output.audio_logits, output.audio_labels, output.audio_loss_mask, config.stream_loss_weights,
            config.ignored_audio_id,
        )  # fmt: skip
        output.loss = config.text_loss_weight * output.text_loss + output.audio_loss

    # Answering

    def generate(self, input_ids: Tensor, stream_mask: Tensor, **settings: Any) -> UniAudioGeneration:
        """Writes what follows a prompt: text, or the frames of reasoning and reconstruction tokens.

        Args:
            input_ids: the prompt, int64 ``[B, S, K + 1]``; shorter ones are padded on the left.
            stream_mask: which ids are there, ``[B, S, K + 1]``; steps without any are padding.
            settings: fields of `GenerationSettings`.

        Raises:
            ValueError: if a setting or the prompt does not fit, or a mark is missing in the configuration.
        """
        return generate(self, input_ids, stream_mask, GenerationSettings(**settings))

    def stream(self, input_ids: Tensor, stream_mask: Tensor, **settings: Any) -> Iterator[StreamedText | StreamedFrame]:
        """As `generate`, but gives each token or frame of each row when it is there."""
        return stream(self, input_ids, stream_mask, GenerationSettings(**settings))


def _marks_behind(reasoning_size: int, reconstruction_size: int) -> dict[str, int]:
    sizes = {"reasoning": reasoning_size, "reconstruction": reconstruction_size}
    return {f"{part}_{name}": size + n for part, size in sizes.items() for n, name in enumerate(("bos", "eos", "pad"))}


def _keep_weights(model: nn.Module) -> None:
    """Tells transformers that nothing of a model is to be drawn anew."""
    for module in model.modules():
        module._is_hf_initialized = True  # type: ignore[assignment]


AutoModel.register(UniAudioLMConfig, UniAudioLM)
