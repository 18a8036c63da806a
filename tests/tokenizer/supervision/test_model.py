"""Tokenizer and text decoder together: stages, counting, batches, warm start, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration, WhisperModel

from audiollm.tokenizer import SapText, SupervisedOutput, SupervisedTokenizer, UniAudioTokenizer
from audiollm.tokenizer.supervision.text_decoder import evenly_spaced


@pytest.fixture
def make_model(whisper_folder: Path) -> Callable[..., SupervisedTokenizer]:
    def make(**settings: Any) -> SupervisedTokenizer:
        defaults: dict[str, Any] = {"quantize_position": 3, "codebook_size": 12, "loss_scale": 4.0}
        model = SupervisedTokenizer.from_whisper(whisper_folder, **defaults | settings)
        model.tokenizer.fit_codebook([torch.randn(16000, generator=torch.Generator().manual_seed(5))], 16000)
        return model

    return make


@pytest.fixture
def model(make_model: Callable[..., SupervisedTokenizer]) -> SupervisedTokenizer:
    return make_model()


def batch_of(model: SupervisedTokenizer, num_samples: list[int]) -> dict[str, Tensor]:
    """Noise of these lengths (multiples of a token's 640 samples), each with a text of its own length."""
    assert model.text is not None
    waveforms, mask = torch.zeros(len(num_samples), max(num_samples)), torch.zeros(len(num_samples), max(num_samples))
    targets = [model.text.encode("asr", "word " * (row + 1)) for row in range(len(num_samples))]
    longest = max(len(target) for target in targets) - 1
    inputs = torch.full((len(targets), longest), model.text.pad_id)
    labels = torch.full((len(targets), longest), -100)
    for row, (own, target) in enumerate(zip(num_samples, targets, strict=True)):
        generator = torch.Generator().manual_seed(own + row)
        waveforms[row, :own], mask[row, :own] = torch.randn(own, generator=generator), 1
        inputs[row, : len(target) - 1], labels[row, : len(target) - 1] = (
            torch.tensor(target[:-1]),
            torch.tensor(target[1:]),
        )
    return {
        "input_features": model.tokenizer.log_mel(waveforms, num_samples),
        "attention_mask": mask[:, ::160].long(),
        "decoder_input_ids": inputs,
        "labels": labels,
    }


def loss_of(output: SupervisedOutput) -> Tensor:
    return output.text_loss_sum / output.num_targets + output.quantizer_loss_sum / output.num_frames.clamp(min=1)


def take(batch: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    return {name: tensor[rows] for name, tensor in batch.items()}


# ------------------------------------------------------------------------ stages


def test_the_first_stage_passes_the_quantizer_by_and_keeps_its_positions(model: SupervisedTokenizer) -> None:
    batch = batch_of(model, [3200, 1920])
    before = {name: value.clone() for name, value in model.tokenizer.codebook.state_dict().items()}
    model.train()
    model.quantize = False
    output = model(**batch)
    assert output.codes is None
    assert float(output.quantizer_loss_sum) == float(output.quantization_error) == 0
    loss_of(output).backward()
    assert model.tokenizer.code_positions.weight.grad.abs().sum() > 0
    assert model.tokenizer.sae.gate[0].weight.grad.abs().sum() > 0
    assert all(torch.equal(before[name], value) for name, value in model.tokenizer.codebook.state_dict().items())


def test_the_second_stage_lets_only_codes_through(model: SupervisedTokenizer) -> None:
    """The decoder's input is entry + position, and the codes are those of the tokenizer alone."""
    batch = batch_of(model, [3200, 1920])
    del model.tokenizer.encoder.layers[3:]
    model.tokenizer.encoder.layer_norm = None
    with torch.no_grad():
        output = model(**batch)
        expected = model.tokenizer.codebook.lookup(output.codes) + model.tokenizer.code_positions.weight[:5]
    torch.testing.assert_close(output.encoder_last_hidden_state, expected)
    assert output.frame_mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]


def test_sums_and_counts_fit_together(model: SupervisedTokenizer) -> None:
    batch = batch_of(model, [3200, 1920])
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    features = model.tokenizer.pre_quantizer_features(batch["input_features"], batch["attention_mask"])
    output = model(**batch)
    assert int(output.num_frames) == 8
    assert int(output.num_targets) == int((batch["labels"] >= 0).sum())
    valid = features[output.frame_mask].detach()
    assert float(output.feature_power) == pytest.approx(float(valid.square().mean(dim=1).sum()), rel=1e-5)
    # loss scale x commitment x squared error; the error is that of the entries which were searched
    assert float(output.quantizer_loss_sum.detach()) == pytest.approx(float(output.quantization_error), rel=1e-5)
    assert not output.quantization_error.requires_grad
    model.eval()
    with torch.no_grad():
        assert float(model(**batch).quantization_error) > 0


def test_without_commitment_loss_the_quantizer_adds_nothing(make_model: Callable[..., SupervisedTokenizer]) -> None:
    model = make_model(use_commit_loss=False).train()
    output = model(**batch_of(model, [3200]))
    assert float(output.quantizer_loss_sum) == 0
    assert float(output.quantization_error) > 0


@pytest.mark.parametrize("quantize", [True, False])
def test_an_update_in_pieces_is_the_update_at_once(
    make_model: Callable[..., SupervisedTokenizer], quantize: bool
) -> None:
    """Summed losses over the counts of all passes: gradients and codebook do not depend on the passes."""
    results = []
    for passes in ([[0, 1, 2, 3]], [[2], [0, 3], [1]]):
        model = make_model(restart_interval=1).train()
        model.quantize = quantize
        model.tokenizer.codebook.deferred = True
        model.tokenizer.codebook.ema_count[:4] = 0
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        batch = batch_of(model, [3200, 1920, 640, 2560])
        num_targets, num_frames = int((batch["labels"] >= 0).sum()), 13
        for rows in passes:
            output = model(**take(batch, rows), example_ids=torch.tensor(rows))
            (output.text_loss_sum / num_targets + output.quantizer_loss_sum / num_frames).backward()
        report = model.tokenizer.codebook.apply_update() if quantize else None
        results.append((model, report))
    (one, report), (other, other_report) = results
    for (name, parameter), twin in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (parameter.grad is None) == (twin.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(twin.grad, parameter.grad, atol=1e-5, rtol=1e-4, msg=name)
    torch.testing.assert_close(other.tokenizer.codebook.state_dict(), one.tokenizer.codebook.state_dict())
    if quantize:
        assert report is not None
        assert other_report is not None
        assert report.num_restarted == other_report.num_restarted > 0


def test_a_pass_without_frames_and_targets_has_gradients_of_zero(model: SupervisedTokenizer) -> None:
    model.train()
    model.tokenizer.codebook.deferred = True
    batch = batch_of(model, [1280])
    batch["labels"].fill_(-100)
    batch["attention_mask"].zero_()
    output = model(**batch, example_ids=torch.zeros(1, dtype=torch.int64))
    assert int(output.num_frames) == int(output.num_targets) == 0
    (output.text_loss_sum + output.quantizer_loss_sum).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert model.decoder.layers[0].fc1.weight.grad is not None  # data parallelism waits for every gradient
    assert model.tokenizer.encoder.conv1.weight.grad is not None


def test_recomputing_layers_changes_nothing(model: SupervisedTokenizer) -> None:
    batch, gradients = batch_of(model, [3200, 1920]), []
    model.train()
    model.tokenizer.codebook.deferred = True
    for enabled in (False, True):
        model.checkpoint_gradients(enabled)
        model.zero_grad()
        torch.manual_seed(0)  # the same dropout
        output = model(**batch, example_ids=torch.arange(2))
        loss_of(output).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


# ---------------------------------------------------------------------- precision


def test_training_under_autocast_stays_close(model: SupervisedTokenizer) -> None:
    batch = batch_of(model, [3200, 640])
    with torch.no_grad():
        exact = model(**batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(**batch)
    assert rough.text_loss_sum.dtype == torch.float32
    assert float(rough.text_loss_sum) == pytest.approx(float(exact.text_loss_sum), rel=0.05)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    assert output.quantizer_loss_sum.dtype == torch.float32
    loss_of(output).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_model_cast_to_bfloat16_keeps_its_codebook_exact(model: SupervisedTokenizer) -> None:
    """As DeepSpeed casts: a moving average in bf16 would not move."""
    before = {name: value.clone() for name, value in model.tokenizer.codebook.state_dict().items()}
    model.bfloat16()
    assert all(torch.equal(before[n], value) for n, value in model.tokenizer.codebook.state_dict().items())
    assert model.tokenizer.encoder.conv1.weight.dtype == model.tokenizer.dtype == torch.bfloat16
    model.train()
    batch = batch_of(model, [3200, 1920])
    for _ in range(3):
        loss = loss_of(model(**batch))
        loss.backward()
    assert loss.isfinite()
    moved = (model.tokenizer.codebook.weight - before["weight"]).abs()
    assert moved.max() > 0
    assert model.tokenizer.codebook.ema_weight.dtype == torch.float32


# --------------------------------------------------------------------- generation


@pytest.mark.parametrize("restricted", [True, False])
def test_a_batch_is_written_as_each_clip_alone(model: SupervisedTokenizer, restricted: bool) -> None:
    assert model.text is not None
    if restricted:
        model.decoder.restrict_output(range(100, 259))
    lengths = [3200, 640, 1920]
    batch = batch_of(model, lengths)
    starts = torch.tensor([model.text.start_id("asr"), 258, 200])
    features, mask = batch["input_features"], batch["attention_mask"]
    texts = model.generate(features, mask, starts, max_new_tokens=10, end_id=None)
    for row, own in enumerate(lengths):
        frames = own // 160
        (alone,) = model.generate(
            features[row : row + 1, :, :frames], None, starts[row : row + 1], max_new_tokens=10, end_id=None
        )
        assert texts[row] == alone


# --------------------------------------------------------------------- warm start


def test_without_quantizer_and_pooling_it_is_whisper(whisper_folder: Path) -> None:
    """All parts are copied to their places: the logits of the old tokens are Whisper's."""
    model = SupervisedTokenizer.from_whisper(
        whisper_folder, quantize_position=2, codebook_size=8, pooling_kernel_size=None, use_sae=False
    )
    model.quantize = False
    nn.init.zeros_(model.tokenizer.code_positions.weight)
    whisper = WhisperForConditionalGeneration.from_pretrained(whisper_folder).eval()
    features, inputs = torch.randn(2, 80, 200), torch.randint(250, (2, 9))
    with torch.no_grad():
        expected = whisper(input_features=features, decoder_input_ids=inputs).logits
        logits = model(features, None, inputs, return_logits=True).logits
    torch.testing.assert_close(logits[..., :259], expected, atol=1e-4, rtol=1e-4)


def test_new_start_tokens_begin_as_the_transcripts(model: SupervisedTokenizer, whisper_folder: Path) -> None:
    old = WhisperModel.from_pretrained(whisper_folder).decoder.embed_tokens.weight
    embedding = model.decoder.embed_tokens.weight
    assert model.text is not None
    assert model.config.vocab_size == len(embedding) == len(old) + 3
    assert torch.equal(embedding[:-3], old)
    for task in ("sap", "caption", "emotion"):
        assert torch.equal(embedding[model.text.start_id(task)], old[257])


def test_fewer_layers_and_more_positions(whisper_folder: Path) -> None:
    whisper = WhisperModel.from_pretrained(whisper_folder)
    model = SupervisedTokenizer.from_whisper(
        whisper, text=SapText.from_pretrained(whisper_folder), quantize_position=2, codebook_size=8,
        encoder_layers=3, decoder_layers=2, max_target_positions=60,
    )  # fmt: skip
    assert len(model.tokenizer.encoder.layers) == 3
    assert model.text is not None
    assert model.text.max_target_positions == 60
    for own, kept in zip(model.decoder.layers, (0, 3), strict=True):
        assert torch.equal(own.fc1.weight, whisper.decoder.layers[kept].fc1.weight)
    positions = whisper.decoder.embed_positions.weight
    assert torch.equal(model.decoder.embed_positions.weight, torch.cat([positions, positions, positions])[:60])


@pytest.mark.parametrize(("kept", "expected"), [(None, [0, 1, 2, 3]), (1, [0]), (2, [0, 3]), (3, [0, 2, 3])])
def test_kept_layers_are_spread(kept: int | None, expected: list[int]) -> None:
    assert evenly_spaced(4, kept) == expected


def test_wrong_starts_are_refused(whisper_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"decoder_layers=5: the Whisper decoder has 4 layers"):
        SupervisedTokenizer.from_whisper(whisper_folder, quantize_position=2, decoder_layers=5)
    encoder = WhisperModel.from_pretrained(whisper_folder).encoder
    with pytest.raises(ValueError, match="neither a folder with a Whisper model"):
        SupervisedTokenizer.from_whisper(whisper_folder / "absent", quantize_position=2)
    with pytest.raises(ValueError, match="WhisperEncoder has no text decoder"):
        SupervisedTokenizer.from_whisper(encoder, quantize_position=2)


def test_the_warm_start_leaves_the_global_generator_alone(whisper_folder: Path) -> None:
    before = torch.random.get_rng_state()
    one = SupervisedTokenizer.from_whisper(whisper_folder, quantize_position=2, codebook_size=8)
    assert torch.equal(torch.random.get_rng_state(), before)
    two = SupervisedTokenizer.from_whisper(whisper_folder, quantize_position=2, codebook_size=8)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


# -------------------------------------------------------------------- checkpoints


def test_a_saved_model_is_the_same_model(model: SupervisedTokenizer, tmp_path: Path) -> None:
    model.quantize = False
    model.decoder.restrict_output(range(97, 259))
    model.save_pretrained(tmp_path)
    again = SupervisedTokenizer.from_pretrained(tmp_path)
    assert not again.quantize
    assert again.decoder.output_ids == model.decoder.output_ids
    assert again.text is not None
    assert again.text.max_target_positions == 24
    state, expected = again.state_dict(), model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.items() if "num_updates" not in name)
    assert state.keys() == expected.keys()
    names = load_file(tmp_path / "model.safetensors")
    assert names["model.decoder.embed_tokens.weight"].shape == (262, 16)  # the layout knows no restriction
    again.decoder.restrict_output(None)
    again.quantize = True
    again.save_pretrained(tmp_path)
    assert SupervisedTokenizer.from_pretrained(tmp_path).decoder.output_ids is None
    assert "quantizer_bypassed" not in json.loads((tmp_path / "config.json").read_text())


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    model: SupervisedTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise OSError("disk full")

    model.decoder.restrict_output(range(97, 259))
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        model.tokenizer.codebook.weight.add_(1)
    model.decoder.restrict_output(None)
    monkeypatch.setattr(SapText, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_training_checkpoint_is_a_tokenizer_too(model: SupervisedTokenizer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "training")
    model.export_tokenizer(tmp_path / "exported")
    waveform = torch.randn(20_000)
    expected = model.tokenizer.encode(waveform, 16000)
    for folder in ("training", "exported"):
        loaded = UniAudioTokenizer.from_pretrained(tmp_path / folder)
        assert torch.equal(loaded.encode(waveform, 16000).codes, expected.codes)
        assert loaded.fingerprint() == model.tokenizer.fingerprint()


def test_the_first_stage_has_no_codes_to_export(
    model: SupervisedTokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.quantize = False
    with pytest.raises(ValueError, match="trained without a quantizer"):
        model.export_tokenizer(tmp_path)
    model.save_pretrained(tmp_path)
    UniAudioTokenizer.from_pretrained(tmp_path).export_released(tmp_path / "exported")
    assert "without its quantizer" in caplog.text


def test_folders_without_text_decoder_are_refused(model: SupervisedTokenizer, tmp_path: Path) -> None:
    model.export_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"without the text decoder .* start from a Whisper checkpoint"):
        SupervisedTokenizer.from_pretrained(tmp_path)


EMBEDDING = "model.decoder.embed_tokens.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(EMBEDDING), r"missing: embed_tokens\.weight"),
        (lambda t: t.update({"model.decoder.other": torch.zeros(1)}), "unknown: other"),
        (lambda t: t.update({EMBEDDING: torch.zeros(3, 16)}), r"embed_tokens\.weight \[3, 16\] instead of \[262, 16\]"),
        (lambda t: t[EMBEDDING].fill_(torch.nan), r"NaN or infinity in embed_tokens\.weight"),
    ],
)
def test_weights_of_the_text_decoder_that_are_not_its_own_are_named(
    model: SupervisedTokenizer, tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        SupervisedTokenizer.from_pretrained(tmp_path)


def test_what_a_header_announces_is_refused_before_it_takes_memory(
    model: SupervisedTokenizer, tmp_path: Path, announce: Callable[[Path, str, int], None]
) -> None:
    model.save_pretrained(tmp_path)
    announce(tmp_path / "model.safetensors", EMBEDDING, 10**10)
    with pytest.raises(ValueError, match=r"embed_tokens\.weight \[10000000000\] instead of \[262, 16\]"):
        SupervisedTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"0": 1}', "[1.5]", "[true]"])
def test_a_damaged_restriction_of_the_output_is_named(model: SupervisedTokenizer, tmp_path: Path, content: str) -> None:
    model.save_pretrained(tmp_path)
    (tmp_path / "output_ids.json").write_text(content)
    with pytest.raises(ValueError, match=r"output_ids\.json is damaged"):
        SupervisedTokenizer.from_pretrained(tmp_path)
