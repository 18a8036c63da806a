"""The diffusion transformer: what its loss and its samples depend on, and what they do not."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save
from transformers import BertConfig, GPT2Config, T5Config, WhisperConfig

from audiollm.diffusion import LatentDiffusion, LatentDiffusionConfig
from audiollm.diffusion.text import load_text_encoder, make_text_encoder, small_text_encoder
from audiollm.tokenizer.decoder.flow.matching import FlowDraws, on_path
from audiollm.tokenizer.decoder.flow.solvers import Integration

from .conftest import LATENT_SIZE, build_model

TEXTS = ["rain on a roof", "a"]
EULER = Integration(4, 1.5, sway=0.0)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return build_model(tasks=["text_to_speech", "text_to_audio"]).requires_grad_(False)


def noise(num_frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_frames, LATENT_SIZE, generator=torch.Generator().manual_seed(seed))


def inputs(model: LatentDiffusion, *, prompts=(0, 0), keep=(True, True), times=(0.3, 0.6), texts=TEXTS):
    lengths = [9, 5]
    latents = [noise(length, 10 + length) for length in lengths]
    text = model.tokenize(texts)
    draws = FlowDraws(
        torch.tensor(times), torch.nn.utils.rnn.pad_sequence([noise(one, one) for one in lengths], batch_first=True),
        torch.tensor(keep), torch.tensor(prompts),
    )  # fmt: skip
    return {
        "latents": torch.nn.utils.rnn.pad_sequence(latents, batch_first=True), "lengths": torch.tensor(lengths),
        "input_ids": text.input_ids, "attention_mask": text.attention_mask, "task_ids": torch.tensor([1, 2]),
        "draws": draws,
    }  # fmt: skip


def test_a_fresh_model_predicts_no_velocity_whatever_it_is_told():
    encoder, tokenizer = small_text_encoder(8, 1, 2)
    config = LatentDiffusionConfig(latent_size=LATENT_SIZE, hidden_size=16, num_layers=2, num_heads=2,
                                   text_config=encoder.config, tasks=["text_to_speech", "text_to_audio"])  # fmt: skip
    fresh = LatentDiffusion(config, encoder, tokenizer)
    given = inputs(fresh)
    is_valid = torch.arange(9) < given["lengths"][:, None]
    _, velocity = on_path(given["draws"].z, given["latents"], given["draws"].t, config.sigma_min)
    assert float(fresh(**given).detach()) == pytest.approx(float(velocity[is_valid].square().mean()), rel=1e-5)


def test_the_loss_is_a_mean_over_all_values_that_are_neither_padding_nor_given(model):
    rows = model.row_losses(**inputs(model, prompts=(4, 0)))
    whole = model(**inputs(model, prompts=(4, 0)))
    assert float(whole) == pytest.approx(float((rows * torch.tensor([5.0, 5.0])).sum() / 10), rel=1e-5)


def test_what_lies_behind_a_clip_changes_nothing(model):
    given = inputs(model)
    expected = model.row_losses(**given)
    for name in ("latents", "z"):
        other = inputs(model)
        (other["latents"] if name == "latents" else other["draws"].z)[1, 5:] = 7.0
        torch.testing.assert_close(model.row_losses(**other), expected)


def test_a_row_without_condition_knows_neither_text_nor_task_nor_prompt(model):
    def second(**changes):
        return float(model.row_losses(**inputs(model, **changes))[1])

    unknowing = second(keep=(True, False))
    assert second(keep=(True, False), texts=["rain on a roof", "b"]) == pytest.approx(unknowing, rel=1e-6)
    assert second(keep=(True, False), prompts=(0, 3)) == pytest.approx(unknowing, rel=1e-6)
    for changes in ({}, {"texts": ["rain on a roof", "b"]}, {"prompts": (0, 3)}):
        assert second(**changes) != pytest.approx(unknowing, rel=1e-4)
    assert second(texts=["rain on a roof", "b"]) != pytest.approx(second(), rel=1e-4)


def test_samples_of_a_batch_are_those_of_each_alone(model):
    noises, prompts = [noise(9), noise(5, 1)], [noise(3, 2), noise(0)]
    both = model.sample(noises, model.tokenize(TEXTS), torch.tensor([1, 2]), EULER, prompts)
    assert [len(one) for one in both] == [6, 5]
    for row, text in enumerate(TEXTS):
        alone = model.sample([noises[row]], model.tokenize([text]), torch.tensor([row + 1]), EULER, [prompts[row]])
        torch.testing.assert_close(both[row], alone[0], rtol=1e-3, atol=1e-4)


def test_guidance_goes_further_the_way_from_unknowing_to_knowing(model):
    def step(guidance, keep=True):
        text, ids = model.tokenize(["rain"]), torch.tensor([1])
        if not keep:
            condition = model.condition(torch.tensor([4]), text, ids, torch.zeros(1, 4, LATENT_SIZE), torch.tensor([0]),
                                        torch.tensor([False]))  # fmt: skip
            return noise(4) + model.velocity(condition, noise(4)[None], torch.tensor(0.0))[0].detach()
        return model.sample([noise(4)], text, ids, Integration(1, guidance, sway=0.0))[0]

    knowing, unknowing = step(0), step(0, keep=False)
    torch.testing.assert_close(step(2.0), knowing + 2 * (knowing - unknowing), rtol=1e-3, atol=1e-4)


def test_normalisation_is_undone_and_is_part_of_the_checkpoint(tmp_path):
    model = build_model()
    model.set_normalisation(torch.arange(6.0), torch.tensor([1.0, 2, 3, 4, 5, 0]))
    latents = noise(5) + 3
    torch.testing.assert_close(model.denormalise(model.normalise(latents)), latents, rtol=1e-3, atol=1e-3)
    model.save_pretrained(tmp_path / "model")
    again = LatentDiffusion.from_pretrained(tmp_path / "model")
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in model.state_dict().items())
    assert again.tokenize(["é"]).input_ids.tolist() == model.tokenize(["é"]).input_ids.tolist()
    of_the_file = ("_name_or_path", "dtype", "text_config", "architectures")
    for name, value in model.config.to_dict().items():
        assert name in of_the_file or again.config.to_dict()[name] == value, name
    with pytest.raises(ValueError, match=r"give \[6\]"):
        model.set_normalisation(torch.zeros(5), torch.ones(5))


def test_weights_that_are_missing_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    build_model().save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    del weights["transformer.output.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing: transformer\.output\.weight"):
        LatentDiffusion.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="holds no diffusion model on latents"):
        LatentDiffusion.from_pretrained(tmp_path)


def test_weights_that_are_misshapen_or_cut_off_are_named_before_they_take_memory(tmp_path):
    build_model().save_pretrained(tmp_path / "model")
    path, config = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "config.json"
    written, values = path.read_bytes(), json.loads(config.read_text())
    config.write_text(json.dumps(values | {"hidden_size": 2 * 10**7}))
    with pytest.raises(ValueError, match=r"wrong shape: .*transformer\.input\.bias \[16\] instead of \[20000000\]"):
        LatentDiffusion.from_pretrained(tmp_path / "model")
    config.write_text(json.dumps(values))
    path.write_bytes(written[:99])
    with pytest.raises(ValueError, match=r"model\.safetensors is cut off or damaged"):
        LatentDiffusion.from_pretrained(tmp_path / "model")
    path.write_bytes(save(load(written) | {"latent_deviation": torch.zeros(6)}, {"format": "pt"}))
    with pytest.raises(ValueError, match="latent_deviation is not above 0"):
        LatentDiffusion.from_pretrained(tmp_path / "model")


def test_texts_that_are_too_long_are_refused_and_not_cut(model):
    with pytest.raises(ValueError, match="has 41 tokens, and the model reads 32: shorten it"):
        model.tokenize(["a" * 40])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 18, "num_heads": 4}, "hidden_size=18 does not make 4 heads of an even size"),
        ({"tasks": ["sing"]}, r"tasks=\['sing'\]: use one or more of text_to_speech"),
        ({"latent_size": 0}, "latent_size=0: use a positive number"),
        ({"text_config": {"d_model": 8}}, "text_config has no model_type"),
        ({"text_config": {"model_type": "t5", "d_model": "x"}}, "text_config: .*'d_model'"),
        ({"text_config": [1]}, r"text_config=\[1\]: give that of a text encoder"),
        ({"tasks": None}, "tasks=None: use a list of"),
        ({"tasks": ["text_to_audio", "text_to_audio"]}, "each once"),
        ({"steps": "4"}, "steps='4': use a positive number"),
        ({"steps": None}, "steps=None: use a positive number"),
        ({"max_frames": 2.5}, "max_frames=2.5: use a positive number, a whole one"),
        ({"num_layers": 10**8}, "num_layers=100000000: give 1000 or fewer"),
        ({"frame_rate": float("nan")}, "frame_rate=nan: use a positive number"),
        ({"frames_per_character": -1.0}, "frames_per_character=-1.0: use a positive number"),
        ({"frames_per_character": "x"}, "frames_per_character='x': use a positive number"),
        ({"sigma_min": 2.0}, r"sigma_min=2.0: use a share of noise"),
        ({"guidance": float("nan")}, "guidance=nan: use 0"),
        ({"sway": 3}, "sway=3: use a number from -1"),
        ({"audio_tokenizer_fingerprint": 3}, "audio_tokenizer_fingerprint=3: use a text"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LatentDiffusionConfig(**settings)


def test_any_text_encoder_is_taken_and_others_are_named(tmp_path):
    small = {"vocab_size": 32, "num_layers": 1, "num_heads": 2}
    for config in (
        T5Config(d_model=8, d_kv=4, d_ff=8, **small),  # of which the encoder alone counts
        BertConfig(vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8),
        GPT2Config(vocab_size=32, n_embd=8, n_layer=1, n_head=2),
    ):
        encoder = make_text_encoder(config)
        states = encoder(input_ids=torch.tensor([[1, 2]]), attention_mask=torch.ones(1, 2)).last_hidden_state
        assert states.shape == (1, 2, 8)
    with pytest.raises(ValueError, match="whisper, which is no text encoder that is known"):
        make_text_encoder(WhisperConfig())
    encoder, tokenizer = small_text_encoder(8, 1, 2)
    encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _ = load_text_encoder(str(tmp_path))
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in encoder.state_dict().items())
