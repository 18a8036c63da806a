"""The text decoder that supervises the tokenizer: Whisper's, reading the encoder's quantized frames.

Layers are transformers' own ``WhisperDecoderLayer``; its ``WhisperDecoder`` cannot be used as it stands, because it
lets the cross-attention see padded frames.
"""
# Shapes: B clips, S text tokens, T encoder frames, D feature size, V vocabulary, U output tokens, N targets.

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.models.whisper.modeling_whisper import WhisperDecoderLayer

from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.linear import Linear, linear

from .cross_entropy import DEFAULT_CHUNK_SIZE, IGNORED_LABEL, cross_entropies
from .text import ADDED_TOKENS, START_TOKENS, SapText


class DecoderLayer(WhisperDecoderLayer):
    """Whisper's layer with this package's `Linear`; parameter names are the same."""

    def __init__(self, config: UniAudioTokenizerConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        dim, inner = config.d_model, config.decoder_ffn_dim
        for attention in (self.self_attn, self.encoder_attn):
            attention.q_proj = Linear(dim, dim)
            attention.k_proj = Linear(dim, dim, bias=False)
            attention.v_proj = Linear(dim, dim)
            attention.out_proj = Linear(dim, dim)
        self.fc1 = Linear(dim, inner)
        self.fc2 = Linear(inner, dim)


class SapDecoder(nn.Module):
    """Writes the text of a task from what the encoder heard.

    Args:
        config: sizes of the decoder and its vocabulary; parameter names are Whisper's below ``model.decoder.``.

    The output matrix is the embedding. `restrict_output` shrinks both to the tokens that the data use.
    """

    def __init__(self, config: UniAudioTokenizerConfig) -> None:
        super().__init__()
        config = copy.deepcopy(config)
        if config._attn_implementation is None:  # no PreTrainedModel has chosen one yet
            config._attn_implementation = "sdpa"
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embed_positions = nn.Embedding(config.max_target_positions, config.d_model)
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)
        self._full_embedding: Tensor | None = None  # [V, D] on the CPU, while the output is restricted
        self.register_buffer("_output_ids", None, persistent=False)  # [U], ascending
        self.register_buffer("_rows", None, persistent=False)  # [V]: row in embed_tokens, -1 where there is none
        self.apply(self._init_weights)

    _output_ids: Tensor | None
    _rows: Tensor | None

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    # ------------------------------------------------------- restricted output

    @property
    def output_ids(self) -> list[int] | None:
        """Tokens that the decoder is restricted to, ascending; None if it knows the whole vocabulary."""
        return None if self._output_ids is None else self._output_ids.tolist()

    def restrict_output(self, token_ids: Iterable[int] | Tensor | None) -> None:
        """Limits inputs, loss and generation to some tokens; the padding token is always among them.

        The softmax over 51,865 tokens, the gradient of their embeddings and the optimizer's state for them are most of
        a small model's cost; data of one language and domain use a few thousand. While restricted, ``embed_tokens``
        holds these rows only (as a new parameter: build the optimizer afterwards); the others stay as they were and are
        put back by `full_state_dict` and ``restrict_output(None)``.

        Args:
            token_ids: ids in the whole vocabulary, in any order, repetitions allowed; None lifts the restriction.

        Raises:
            ValueError: if there are none, or one is outside the vocabulary.
        """
        full_VD, device = self._full_rows(), self.embed_tokens.weight.device
        if token_ids is None:
            self._full_embedding = self._output_ids = self._rows = None
            self.embed_tokens = self._embedding(full_VD.to(device))
            return
        ids_U = torch.as_tensor(token_ids if isinstance(token_ids, Tensor) else list(token_ids), dtype=torch.int64)
        if not ids_U.numel() or int(ids_U.min()) < 0 or int(ids_U.max()) >= len(full_VD):
            raise ValueError(
                f"{ids_U.numel()} output tokens were given{f', up to {int(ids_U.max())}' if ids_U.numel() else ''}: "
                f"pass at least one id in [0, {len(full_VD)})"
            )
        ids_U = torch.cat([ids_U.cpu(), torch.tensor([self.config.pad_token_id])]).unique()
        rows_V = torch.full((len(full_VD),), -1)
        rows_V[ids_U] = torch.arange(len(ids_U))
        self._full_embedding = full_VD.cpu()
        self._output_ids, self._rows = ids_U.to(device), rows_V.to(device)
        self.embed_tokens = self._embedding(full_VD.cpu()[ids_U].to(device))

    def _embedding(self, weight: Tensor) -> nn.Embedding:
        requires_grad = self.embed_tokens.weight.requires_grad
        return nn.Embedding.from_pretrained(weight.clone(), freeze=not requires_grad)

    @torch.no_grad()
    def _full_rows(self) -> Tensor:
        """The embedding of the whole vocabulary, ``[V, D]``."""
        weight_UD = self.embed_tokens.weight.detach()
        if self._full_embedding is None or self._output_ids is None:
            return weight_UD
        full_VD = self._full_embedding.to(weight_UD.dtype, copy=True)
        full_VD[self._output_ids.cpu()] = weight_UD.cpu()
        return full_VD

    def full_state_dict(self) -> dict[str, Tensor]:
        """Returns the weights as a checkpoint holds them: with the embedding of the whole vocabulary."""
        return {**self.state_dict(), "embed_tokens.weight": self._full_rows()}

    def load_full_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads weights with the embedding of the whole vocabulary, lifting any restriction."""
        self.restrict_output(None)
        self.load_state_dict(dict(tensors))

    def to_rows(self, token_ids: Tensor, name: str = "token_ids") -> Tensor:
        """Translates ids into rows of ``embed_tokens``; -100 stays.

        Raises:
            ValueError: if a token is outside the vocabulary or what `restrict_output` left of it.
        """
        ignored = token_ids == IGNORED_LABEL
        ids = token_ids.masked_fill(ignored, self.config.pad_token_id)
        wrong = (ids < 0) | (ids >= self.config.vocab_size)
        if bool(wrong.any()):
            raise ValueError(
                f"{name} hold {int(ids[wrong][0])}, but the vocabulary has {self.config.vocab_size} entries"
            )
        if self._rows is None:
            return token_ids
        rows = self._rows[ids]
        if bool((rows < 0).any()):
            raise ValueError(
                f"{name} hold token {int(ids[rows < 0][0])}, which is not among the "
                f"{self.embed_tokens.num_embeddings} tokens that the output is restricted to; give restrict_output "
                "all tokens of the data, or None"
            )
        return rows.masked_fill(ignored, IGNORED_LABEL)

    # ---------------------------------------------------------------- forward

    def forward(
        self,
        token_ids_BS: Tensor,
        encoder_BTD: Tensor,
        frame_mask_BT: Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> Tensor:
        """Runs the layers.

        Args:
            token_ids_BS: inputs, int64 ``[B, S]``, padded on the right (later positions influence no earlier one).
            encoder_BTD: the encoder's output, ``[B, T, D]``.
            frame_mask_BT: True or 1 for valid frames, ``[B, T]``; padded ones are hidden. None if all are valid.
            cache: keys and values of the positions before these; extended in place.

        Returns:
            Hidden states ``[B, S, D]``; see `logits` and `text_loss`.

        Raises:
            ValueError: if there are more positions than the decoder has, or a token is outside the vocabulary.
        """
        num_before = 0 if cache is None else cache.get_seq_length()
        num_positions = num_before + token_ids_BS.shape[1]
        if num_positions > self.config.max_target_positions:
            raise ValueError(
                f"{num_positions} text tokens, but the decoder has {self.config.max_target_positions} positions; cut "
                "the targets to max_target_positions + 1 tokens, or start a decoder with more"
            )
        hidden_BSD = self.embed_tokens(self.to_rows(token_ids_BS, "decoder inputs"))
        hidden_BSD = hidden_BSD * (self.config.d_model**0.5 if self.config.scale_embedding else 1.0)
        hidden_BSD = hidden_BSD + self.embed_positions.weight[num_before:num_positions]
        hidden_BSD = F.dropout(hidden_BSD, p=self.config.dropout, training=self.training)
        bias_B11T = hiding_bias(frame_mask_BT, hidden_BSD)
        for layer in self.layers:
            # No mask for the self-attention: the attention function itself is causal for more than one position.
            hidden_BSD = layer(
                hidden_BSD, None, encoder_BTD.to(hidden_BSD.dtype), encoder_attention_mask=bias_B11T,
                past_key_values=cache, use_cache=cache is not None,
            )  # fmt: skip
        normed: Tensor = self.layer_norm(hidden_BSD)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """Computes scores of the output tokens, ``[..., V]``, or ``[..., U]`` in the order of `output_ids`."""
        return linear(hidden, self.embed_tokens.weight)

    def text_loss(
        self, hidden_BSD: Tensor, labels_BS: Tensor, *, chunk_size: int = DEFAULT_CHUNK_SIZE
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums the cross-entropy over targets.

        Args:
            hidden_BSD: what `forward` returned.
            labels_BS: the next token at each position, int64 ``[B, S]``; -100 where nothing is to be learned.
            chunk_size: targets whose logits exist at the same time.

        Returns:
            The sum in nats, a float32 scalar; the number of targets, an int64 scalar; and both of each clip, float32
            ``[B, 2]``, without gradient.

        Raises:
            ValueError: if a label is outside the vocabulary or what `restrict_output` left of it.
        """
        is_target_BS = labels_BS != IGNORED_LABEL
        rows_N = self.to_rows(labels_BS[is_target_BS], "labels")
        total, losses_N = cross_entropies(hidden_BSD[is_target_BS], self.embed_tokens.weight, rows_N, chunk_size)
        by_clip_B2 = losses_N.new_zeros(len(labels_BS), 2)
        by_clip_B2.index_add_(
            0, is_target_BS.nonzero()[:, 0], torch.stack([losses_N, torch.ones_like(losses_N)], dim=1)
        )
        return total, is_target_BS.sum(), by_clip_B2

    # --------------------------------------------------------------- generate

    @torch.no_grad()
    def generate(
        self,
        encoder_BTD: Tensor,
        frame_mask_BT: Tensor | None,
        start_ids_B: Tensor,
        *,
        max_new_tokens: int,
        end_id: int | None,
    ) -> list[list[int]]:
        """Writes the likeliest next token again and again; each clip's text is what it would be alone.

        Args:
            encoder_BTD: the encoder's output, ``[B, T, D]``.
            frame_mask_BT: 1 for valid frames, ``[B, T]``; None if all are.
            start_ids_B: start token of each clip's task, int64 ``[B]``.
            max_new_tokens: stop after so many, or at the decoder's last position.
            end_id: stop a clip at this token; None never stops early.

        Returns:
            Ids per clip, without start token and ``end_id``.
        """
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        current_B1 = start_ids_B.to(encoder_BTD.device)[:, None]
        columns: list[Tensor] = []
        is_done_B = torch.zeros(len(current_B1), dtype=torch.bool, device=encoder_BTD.device)
        for _ in range(min(max_new_tokens, self.config.max_target_positions)):
            hidden_B1D = self(current_B1, encoder_BTD, frame_mask_BT, cache)
            rows_B = self.logits(hidden_B1D[:, -1]).argmax(dim=-1)
            next_B = rows_B if self._output_ids is None else self._output_ids[rows_B]
            columns.append(next_B)
            if end_id is not None:
                is_done_B = is_done_B | (next_B == end_id)
                if bool(is_done_B.all()):
                    break
            current_B1 = next_B[:, None]
        rows = torch.stack(columns, dim=1).tolist() if columns else [[] for _ in range(len(current_B1))]
        return [row[: row.index(end_id)] if end_id in row else row for row in rows]


def hiding_bias(frame_mask_BT: Tensor | None, like: Tensor) -> Tensor | None:
    """Builds what cross-attention adds to its scores, ``[B, 1, 1, T]``: 0 for valid frames, else a huge negative."""
    if frame_mask_BT is None:
        return None
    dtype = like.dtype
    if torch.is_autocast_enabled(like.device.type):
        dtype = torch.get_autocast_dtype(like.device.type)
    # The least finite number, not -inf: a clip of padding alone must not become NaN.
    hidden = torch.zeros(frame_mask_BT.shape, dtype=dtype, device=like.device)
    return hidden.masked_fill(~frame_mask_BT.bool(), torch.finfo(dtype).min)[:, None, None]


def shift_right(labels_BS: Tensor, start_id: int, pad_id: int) -> Tensor:
    """Makes decoder inputs of labels: the start token, then all labels but the last, -100 replaced by padding."""
    inputs_BS = torch.cat([labels_BS.new_full((len(labels_BS), 1), start_id), labels_BS[:, :-1]], dim=1)
    return inputs_BS.masked_fill(inputs_BS == IGNORED_LABEL, pad_id)


def evenly_spaced(num_layers: int, kept: int | None) -> list[int]:
    """Picks ``kept`` of ``num_layers`` layers, first and last among them (as Gandhi et al., 2023, arXiv:2311.00430).

    Raises:
        ValueError: if there are not so many.
    """
    if kept is None:
        return list(range(num_layers))
    if not 1 <= kept <= num_layers:
        raise ValueError(f"decoder_layers={kept}: the Whisper decoder has {num_layers} layers, use 1 to {num_layers}")
    return [round(index) for index in torch.linspace(0, num_layers - 1, kept).tolist()]


@torch.no_grad()
def copy_decoder(source: Mapping[str, Tensor], decoder: SapDecoder, kept: list[int], text: SapText | None) -> None:
    """Copies a Whisper decoder's tensors: the layers ``kept``, and tables of which some rows may be new."""
    target = decoder.state_dict()
    for name, tensor in target.items():
        parts = name.split(".")
        if parts[0] == "layers":
            name = ".".join(["layers", str(kept[int(parts[1])]), *parts[2:]])
        values = source[name].to(tensor.dtype)
        if name in ("embed_tokens.weight", "embed_positions.weight"):
            # Copies in turn, as Longformer extends its positions (Beltagy et al., 2020, arXiv:2004.05150).
            values = values.repeat(-(-len(tensor) // len(values)), 1)[: len(tensor)]
        tensor.copy_(values)
    if text is not None:
        embedding, num_old = target["embed_tokens.weight"], len(source["embed_tokens.weight"])
        for task, token in START_TOKENS.items():
            if token in ADDED_TOKENS and text.start_id(task) >= num_old:
                embedding[text.start_id(task)] = embedding[text.start_id("asr")]
