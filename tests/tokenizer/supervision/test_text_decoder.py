"""Properties of the text decoder that hold whatever the reference does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer import SapDecoder, UniAudioTokenizerConfig
from audiollm.tokenizer.encoder.whisper import recompute_layers
from audiollm.tokenizer.supervision.cross_entropy import summed_cross_entropy

VOCABULARY, POSITIONS = 50, 12


@pytest.fixture
def decoder(tiny_config: Callable[..., UniAudioTokenizerConfig]) -> SapDecoder:
    torch.manual_seed(0)
    config = tiny_config(
        vocab_size=VOCABULARY, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=24, init_std=0.5,
        max_target_positions=POSITIONS, pad_token_id=3, eos_token_id=3, decoder_start_token_id=4,
    )  # fmt: skip
    return SapDecoder(config).eval()


@pytest.fixture
def heard() -> tuple[Tensor, Tensor]:
    """Encoder frames of three clips, the last of padding alone, and their mask."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(6) < torch.tensor([6, 4, 0])[:, None]
    return torch.randn(3, 6, 16, generator=generator), mask


@pytest.fixture
def labels() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(10, 30, (3, 7), generator=generator)
    labels[1, 4:] = labels[2, 2] = -100
    return labels


def inputs_of(labels: Tensor) -> Tensor:
    return torch.cat([torch.full((3, 1), 4), labels[:, :-1]], dim=1).masked_fill_(labels < 0, 3).clamp(min=3)


def test_no_position_sees_a_later_one(decoder: SapDecoder, heard: tuple[Tensor, Tensor], labels: Tensor) -> None:
    inputs = inputs_of(labels)
    other = inputs.clone()
    other[:, 4:] = 9
    with torch.no_grad():
        one, two = decoder(inputs, *heard), decoder(other, *heard)
    torch.testing.assert_close(one[:, :4], two[:, :4])
    assert not torch.allclose(one[:, 4:], two[:, 4:])


def test_padded_frames_are_never_heard(decoder: SapDecoder, heard: tuple[Tensor, Tensor], labels: Tensor) -> None:
    frames, mask = heard
    loud = torch.where(mask[..., None], frames, 100.0)
    with torch.no_grad():
        one, two = decoder(inputs_of(labels), frames, mask), decoder(inputs_of(labels), loud, mask)
        alone = decoder(inputs_of(labels)[1:2], frames[1:2, :4])
    torch.testing.assert_close(one[:2], two[:2])
    torch.testing.assert_close(one[1:2], alone)
    assert one.isfinite().all()  # the clip of padding alone too


def test_generation_with_cache_repeats_what_the_whole_text_gives(
    decoder: SapDecoder, heard: tuple[Tensor, Tensor]
) -> None:
    starts = torch.tensor([4, 5, 6])
    texts = decoder.generate(*heard, starts, max_new_tokens=8, end_id=None)
    inputs = torch.cat([starts[:, None], torch.tensor(texts)], dim=1)
    with torch.no_grad():
        expected = decoder.logits(decoder(inputs[:, :-1], *heard)).argmax(dim=-1)
    assert texts == expected.tolist()
    assert len({tuple(text) for text in texts}) > 1


def test_a_batch_is_written_as_each_clip_alone_and_ends_at_the_end_token(
    decoder: SapDecoder, heard: tuple[Tensor, Tensor]
) -> None:
    frames, mask = heard
    starts = torch.tensor([4, 5, 6])
    free = decoder.generate(frames, mask, starts, max_new_tokens=8, end_id=None)
    end_id = free[1][2]
    texts = decoder.generate(frames, mask, starts, max_new_tokens=8, end_id=end_id)
    for row in range(3):
        alone = decoder.generate(
            frames[row : row + 1], mask[row : row + 1], starts[row : row + 1], max_new_tokens=8, end_id=end_id
        )
        assert [texts[row]] == alone
        expected = free[row][: free[row].index(end_id)] if end_id in free[row] else free[row]
        assert texts[row] == expected


def test_generation_stops_at_the_last_position(decoder: SapDecoder, heard: tuple[Tensor, Tensor]) -> None:
    texts = decoder.generate(*heard, torch.tensor([4, 4, 4]), max_new_tokens=100, end_id=None)
    assert {len(text) for text in texts} == {POSITIONS}
    with pytest.raises(ValueError, match=r"13 text tokens, but the decoder has 12 positions"):
        decoder(torch.full((3, POSITIONS + 1), 4), *heard)


@pytest.mark.parametrize("chunk_size", [1, 4, 1000])
@pytest.mark.parametrize("trainable", [True, False])
def test_loss_in_chunks_is_the_loss_of_all_logits(chunk_size: int, trainable: bool) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(9, 8, requires_grad=True), torch.randn(20, 8, requires_grad=trainable)
    labels = torch.randint(20, (9,))
    loss = summed_cross_entropy(hidden, weight, labels, chunk_size)
    expected = F.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    torch.testing.assert_close(loss, expected)
    wanted = [hidden, weight] if trainable else [hidden]
    for actual, naive in zip(
        torch.autograd.grad(loss / 3, wanted), torch.autograd.grad(expected / 3, wanted), strict=True
    ):
        torch.testing.assert_close(actual, naive)


def test_loss_without_targets_is_zero_and_has_a_gradient() -> None:
    hidden, weight = torch.randn(0, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True)
    loss = summed_cross_entropy(hidden, weight, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(weight.grad, torch.zeros(20, 8))


def test_loss_under_autocast_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(300, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True)
    labels = torch.randint(20, (300,))
    expected = F.cross_entropy((hidden.bfloat16() @ weight.bfloat16().T).float(), labels, reduction="sum")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = summed_cross_entropy(hidden, weight, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32
    naive = torch.autograd.grad(F.cross_entropy(hidden @ weight.T, labels, reduction="sum"), weight)[0]
    torch.testing.assert_close(weight.grad, naive, rtol=0.05, atol=0.3)


def train_once(decoder: SapDecoder, heard: tuple[Tensor, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    decoder.zero_grad()
    loss, _, _ = decoder.text_loss(decoder(inputs_of(labels), *heard), labels)
    loss.backward()
    return loss.detach(), decoder.layers[0].fc1.weight.grad.clone()


def test_recomputing_layers_changes_nothing(decoder: SapDecoder, heard: tuple[Tensor, Tensor], labels: Tensor) -> None:
    decoder.train()
    expected = train_once(decoder, heard, labels)
    recompute_layers(decoder.layers)
    for actual, value in zip(train_once(decoder, heard, labels), expected, strict=True):
        torch.testing.assert_close(actual, value)


# ------------------------------------------------------------- restricted output


def test_restricted_loss_is_the_softmax_over_these_tokens(
    decoder: SapDecoder, heard: tuple[Tensor, Tensor], labels: Tensor
) -> None:
    allowed = sorted({3, 4, *labels[labels >= 0].tolist()})
    hidden = decoder(inputs_of(labels), *heard)
    scores = decoder.logits(hidden)[..., allowed]
    rows = torch.tensor([allowed.index(label) if label >= 0 else -100 for label in labels.flatten().tolist()])
    expected = F.cross_entropy(scores.flatten(0, 1), rows, reduction="sum", ignore_index=-100)
    decoder.restrict_output([*allowed, *allowed])
    assert decoder.output_ids == allowed
    loss, num_targets, by_clip = decoder.text_loss(decoder(inputs_of(labels), *heard), labels)
    torch.testing.assert_close(loss, expected)
    assert int(num_targets) == int((labels >= 0).sum())
    each = F.cross_entropy(scores.flatten(0, 1), rows, reduction="none", ignore_index=-100).view(labels.shape)
    torch.testing.assert_close(by_clip, torch.stack([each.sum(dim=1), (labels >= 0).sum(dim=1).float()], dim=1))
    assert loss.requires_grad
    assert not by_clip.requires_grad
    assert decoder.embed_tokens.weight.shape == (len(allowed), 16)


def test_restricted_generation_writes_only_these_tokens(decoder: SapDecoder, heard: tuple[Tensor, Tensor]) -> None:
    starts = torch.tensor([4, 5, 6])
    free = decoder.generate(*heard, starts, max_new_tokens=6, end_id=None)
    allowed = {4, 5, 6, 40, 41, 42}
    decoder.restrict_output(allowed)
    texts = decoder.generate(*heard, starts, max_new_tokens=6, end_id=None)
    assert {token for text in texts for token in text} <= allowed | {3}
    decoder.restrict_output(None)
    assert decoder.generate(*heard, starts, max_new_tokens=6, end_id=None) == free


def test_what_was_learned_under_restriction_returns_to_its_rows(
    decoder: SapDecoder, heard: tuple[Tensor, Tensor], labels: Tensor
) -> None:
    before = decoder.embed_tokens.weight.detach().clone()
    for allowed in ([*range(3, 30)], [*range(3, 40)]):
        decoder.restrict_output(allowed)
        train_once(decoder, heard, labels)
        with torch.no_grad():
            decoder.embed_tokens.weight -= 0.1 * decoder.embed_tokens.weight.grad
    full = decoder.full_state_dict()["embed_tokens.weight"]
    assert full.shape == before.shape
    assert torch.equal(full[40:], before[40:])
    assert torch.equal(full[:3], before[:3])
    assert not torch.isclose(full[10:30], before[10:30]).all(dim=1).any()
    restricted = decoder(inputs_of(labels), *heard)
    decoder.restrict_output(None)
    assert torch.equal(decoder.embed_tokens.weight, full)
    torch.testing.assert_close(decoder(inputs_of(labels), *heard), restricted)


def test_a_frozen_embedding_stays_frozen(decoder: SapDecoder) -> None:
    decoder.embed_tokens.requires_grad_(False)
    decoder.restrict_output([5])
    assert not decoder.embed_tokens.weight.requires_grad


def test_tokens_outside_are_named_with_the_fix(
    decoder: SapDecoder, heard: tuple[Tensor, Tensor], labels: Tensor
) -> None:
    hidden = decoder(inputs_of(labels), *heard)
    with pytest.raises(ValueError, match=r"labels hold 50, but the vocabulary has 50"):
        decoder.text_loss(hidden, torch.full_like(labels, 50))
    with pytest.raises(ValueError, match=r"decoder inputs hold -7"):
        decoder(torch.full_like(labels, -7), *heard)
    with pytest.raises(ValueError, match=r"at least one id in \[0, 50\)"):
        decoder.restrict_output([])
    with pytest.raises(ValueError, match=r"up to 50: .*\[0, 50\)"):
        decoder.restrict_output([2, 50])
    decoder.restrict_output([4, 5])
    with pytest.raises(ValueError, match=r"labels hold token 11, .* restrict_output"):
        decoder.text_loss(hidden, torch.full_like(labels, 11))
