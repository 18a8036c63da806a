"""Models under test: ours, one of transformers, one behind a server; each tiny and untrained."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoProcessor,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from audiollm.benchmarks.models.base import AnswerSettings, AudioChatModel, ChatAnswer, ChatRequest
from audiollm.benchmarks.models.opening import open_audio_chat_model
from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.writing import wav_file
from audiollm.data.chat import endpoint as chat_endpoint
from audiollm.data.chat.base import ChatError, EndpointSettings
from audiollm.modeling import AudioLLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHORT = AnswerSettings(max_new_tokens=6)


def wav(seconds: float, sample_rate: int = 16000, channels: int = 1, **options: Any) -> bytes:
    samples = np.random.default_rng(int(seconds * 1000)).normal(0, 0.1, (int(seconds * sample_rate), channels))
    buffer = io.BytesIO()
    sf.write(buffer, samples, sample_rate, **({"format": "WAV"} | options))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def qwen2_audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-Audio of 30 thousand weights."""
    folder = tmp_path_factory.mktemp("qwen2-audio")
    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    text_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder", "num_mel_bins": 80, "d_model": 16, "encoder_layers": 1,
            "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
        },
        text_config={
            "model_type": "qwen2", "vocab_size": len(text_tokenizer), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        },
        audio_token_index=text_tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )  # fmt: skip
    Qwen2AudioForConditionalGeneration(config).save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=80)
    Qwen2AudioProcessor(extractor, text_tokenizer, chat_template=TEMPLATE).save_pretrained(folder)
    return folder


@pytest.fixture(params=["ours", "transformers"])
def local_folder(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("audio_llm" if request.param == "ours" else "qwen2_audio")
    return folder


def open_local(folder: Path, settings: AnswerSettings = SHORT) -> AudioChatModel:
    return open_audio_chat_model(folder, settings=settings, device="cpu")


def test_a_batch_is_answered_as_its_requests_alone_are(local_folder: Path, folders: Path) -> None:
    model = open_local(local_folder)
    requests = [
        ChatRequest(str(folders / "clips" / "a.wav"), "Which? A. this\nB. that"),
        ChatRequest(wav(0.3), "And?"),
        ChatRequest(wav(0.7, 44100, 2), "Which one of all of these?"),
    ]
    together = model.answer(requests)
    assert together == [model.answer([request])[0] for request in requests]
    assert all(isinstance(answer, ChatAnswer) for answer in together)
    assert len(set(together)) > 1  # it does listen or read


def test_the_sound_and_the_question_both_count(local_folder: Path) -> None:
    model = open_local(local_folder, AnswerSettings(max_new_tokens=24))
    sounds = {tuple(model.answer([ChatRequest(wav(seconds), "Which?")])) for seconds in (0.3, 0.5, 0.9)}
    texts = ["Which?", "A. a dog\nB. a cat\n", "0 1 2 3 4 5 6 7 8 9 " * 3]
    questions = {tuple(model.answer([ChatRequest(wav(0.5), text)])) for text in texts}
    assert len(sounds) > 1
    assert len(questions) > 1


def test_the_longest_answer_is_kept_to_and_drawing_follows_the_seed(local_folder: Path) -> None:
    request = [ChatRequest(wav(0.4), "Which?")]
    model = open_local(local_folder, AnswerSettings(max_new_tokens=1))
    (answer,) = model.answer(request)
    assert isinstance(answer, ChatAnswer)
    assert len(answer.text) <= 1  # bytes are tokens here
    assert answer.is_cut
    drawn = [
        open_local(local_folder, AnswerSettings(max_new_tokens=12, temperature=1.0, seed=seed)) for seed in (1, 1, 2)
    ]
    first, again, other = (model.answer(request)[0] for model in drawn)
    assert first == again != other


def test_a_model_says_which_one_it_is_and_how_it_answers(local_folder: Path, tmp_path: Path) -> None:
    described = open_local(local_folder).describe()
    assert described["name"] == str(local_folder)
    revision = described["revision"]
    assert revision is not None
    assert revision.startswith("sha256:")
    assert described["tokenizer_revision"]
    model = open_local(local_folder)
    assert model.decoding == {"max_new_tokens": 6, "temperature": 0.0, "dtype": "float32"}
    copy = shutil.copytree(local_folder, tmp_path / "copy")
    assert open_local(copy).describe() == {**described, "name": str(copy)}
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert open_local(copy).describe()["revision"] != revision


def test_the_audio_tokenizer_has_a_revision_of_its_own(audio_llm: Path, tmp_path: Path) -> None:
    before = open_local(audio_llm).describe()
    copy = shutil.copytree(audio_llm, tmp_path / "copy")
    weights = bytearray((copy / "audio_tokenizer" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "audio_tokenizer" / "model.safetensors").write_bytes(weights)
    after = open_local(copy).describe()
    assert after["revision"] == before["revision"]
    assert after["tokenizer_revision"] != before["tokenizer_revision"]


def test_a_run_and_a_checkpoint_have_the_revision_of_what_is_loaded(audio_llm: Path, tmp_path: Path) -> None:
    expected = open_local(audio_llm).describe()
    run = tmp_path / "run"
    shutil.copytree(audio_llm, run / "model")
    (run / "run.json").write_text("{}")
    assert open_local(run).describe() == expected | {"name": str(run)}
    revisions = {expected["revision"]}
    for number, factor in enumerate((1.0, 0.5)):
        checkpoint = tmp_path / f"step_{number:06d}"
        checkpoint.mkdir()
        (checkpoint / "checkpoint.json").write_text("{}")
        (checkpoint / "config.json").write_text(json.dumps({"model": str(audio_llm), "lora": None}))
        model = AudioLLM.from_pretrained(audio_llm).model
        weights = {f"model.{name}": one.detach() * factor for name, one in model.named_parameters()}
        save_file(weights, checkpoint / "weights.safetensors")
        found = open_local(checkpoint).describe()
        assert found["tokenizer_revision"] == expected["tokenizer_revision"]
        revisions.add(found["revision"])
    assert len(revisions) == 3


def test_a_recording_that_is_longer_than_a_model_hears_is_named(
    qwen2_audio: Path, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [ChatRequest(wav(seconds, 8000), "Which?") for seconds in (30.5, 30)]
    answers = open_local(qwen2_audio).answer(requests)
    assert [isinstance(one, ChatAnswer) and one.is_recording_cut for one in answers] == [True, False]
    assert "hears only the first 30 s of a recording of 30.5 s" in caplog.text


def test_a_broken_recording_is_an_error_that_names_it(local_folder: Path, folders: Path) -> None:
    with pytest.raises(AudioError, match=r"broken\.wav"):
        open_local(local_folder).answer([ChatRequest(str(folders / "broken.wav"), "Which?")])


def test_what_does_not_hear_or_has_no_template_is_refused(
    folders: Path, qwen2_audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="llm has no feature extractor for audio"):
        open_local(folders / "llm")
    with pytest.raises(ValueError, match="leave out endpoint_model"):
        open_audio_chat_model(qwen2_audio, endpoint_model="gpt", device="cpu")
    untaught = AutoProcessor.from_pretrained(qwen2_audio)
    untaught.chat_template = None
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda source, **options: untaught)
    with pytest.raises(ValueError, match=r"has no chat template.*use an instruction-tuned"):
        open_local(qwen2_audio)


@pytest.fixture
def endpoint(chat_server: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AudioChatModel]:
    import openai._base_client

    monkeypatch.setattr(chat_endpoint, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)

    def opened(**options: Any) -> AudioChatModel:
        return open_audio_chat_model(
            chat_server.url, settings=SHORT, endpoint=EndpointSettings(max_retries=1), **options
        )

    return opened


def test_an_endpoint_hears_the_recording_and_reads_the_question(
    chat_server: Any, endpoint: Callable[..., AudioChatModel]
) -> None:
    stereo = wav(0.2, 44100, 2)
    model = endpoint(concurrency=3)
    assert model.answer([ChatRequest(stereo, "Which?")]) == [ChatAnswer("yes")]
    (request,) = chat_server.requests
    (message,) = request["messages"]
    sound, text = message["content"]
    assert base64.b64decode(sound["input_audio"]["data"]) == stereo
    assert text == {"type": "text", "text": "Which?"}
    assert (request["max_tokens"], request["temperature"]) == (6, 0.0)
    assert model.concurrency == 3
    assert model.describe() == {
        "name": "tiny", "endpoint": chat_server.url, "revision": None, "tokenizer_revision": None,
    }  # fmt: skip
    assert model.decoding == {"max_new_tokens": 6, "temperature": 0.0}


def test_an_endpoint_that_fails_once_keeps_the_other_answers(
    chat_server: Any, endpoint: Callable[..., AudioChatModel]
) -> None:
    chat_server.misbehave(status=400, body='{"error": {"message": "too loud"}}')
    first, second = endpoint().answer([ChatRequest(wav(0.1), "1?"), ChatRequest(wav(0.1), "2?")])
    assert isinstance(first, ChatError)
    assert "too loud" in str(first)
    assert second == ChatAnswer("yes")


def test_recordings_of_any_format_go_to_an_endpoint_as_wav(tmp_path: Path) -> None:
    flac = tmp_path / "clip.wav"  # many data sets call every file so
    flac.write_bytes(wav(0.5, 22050, 2, format="FLAC"))
    samples, sample_rate = sf.read(io.BytesIO(wav_file(str(flac))))
    assert (samples.shape, sample_rate) == ((11025,), 22050)
    info = sf.info(io.BytesIO(wav_file(wav(0.5, subtype="FLOAT"))))
    assert (info.format, info.subtype) == ("WAV", "PCM_16")


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        AnswerSettings(max_new_tokens=0)
    with pytest.raises(ValueError, match="temperature=-1"):
        AnswerSettings(temperature=-1)


def two_channels(left: np.ndarray, right: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, np.stack([left, right], axis=1), 16000, format="WAV", subtype="DOUBLE")
    return buffer.getvalue()


def one_channel(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, samples, 16000, format="WAV", subtype="DOUBLE")
    return buffer.getvalue()


def test_the_channel_that_is_heard_is_chosen_and_part_of_what_an_answer_depends_on(local_folder: Path) -> None:
    left, right = (0.3 * np.sin(np.arange(8000) * pitch) for pitch in (0.05, 0.2))
    both, heard = two_channels(left, right), {"first": left, "mean": (left + right) / 2}
    answers = {}
    for mono in ("first", "mean", None):
        model = open_local(local_folder, AnswerSettings(max_new_tokens=24, mono=mono))  # type: ignore[arg-type]
        assert model.decoding.get("mono") == mono
        answers[mono] = model.answer([ChatRequest(both, "Which?")])
        if mono is not None:
            assert answers[mono] == model.answer([ChatRequest(one_channel(heard[mono]), "Which?")])
    own = "first" if "audio-llm" in str(local_folder) else "mean"
    assert answers[None] == answers[own]


def test_an_endpoint_is_sent_the_channel_that_was_chosen() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, (800, 2))
    buffer = io.BytesIO()
    sf.write(buffer, samples, 16000, format="WAV", subtype="PCM_16")
    whole = buffer.getvalue()
    kept = sf.read(io.BytesIO(whole))[0]
    assert wav_file(whole) == whole
    for mono, expected in (("first", kept[:, 0]), ("mean", kept.mean(1))):
        sent, rate = sf.read(io.BytesIO(wav_file(whole, mono)))  # type: ignore[arg-type]
        assert rate == 16000
        assert sent.shape == (800,)
        assert np.allclose(sent, expected, atol=1 / 2**15)
