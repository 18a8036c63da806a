"""What a recognizer is asked, with a recognizer in its place that tells what it was given."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2Config, Wav2Vec2Config, WhisperConfig

from audiollm.benchmarks.speech.judges import recognizers
from audiollm.benchmarks.speech.judges.recognizers import Transcriber, check_recognizer

GREEDY = {"num_beams": 1}


class Echo:
    """Answers with the length and the options of each recording."""

    type = "seq2seq_whisper"
    model = SimpleNamespace(generation_config=SimpleNamespace(is_multilingual=True))

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], dict]] = []

    def __call__(self, inputs, batch_size, **options):
        assert all(one["sampling_rate"] == 16000 and one["raw"].ndim == 1 for one in inputs)
        self.calls.append(([len(one["raw"]) for one in inputs], options))
        return [{"text": f" {len(one['raw'])} "} for one in inputs]


@pytest.fixture
def echo(monkeypatch) -> Echo:
    echo = Echo()
    monkeypatch.setattr("transformers.pipeline", lambda task, **options: echo)
    return echo


def test_each_recording_gets_its_own_text_and_the_shortest_none(echo):
    transcriber = Transcriber("some-recognizer", batch_size=2)
    lengths = [5000, 100, 3000, 4000]
    assert transcriber.transcribe([torch.zeros(n) for n in lengths], 16000) == ["5000", "", "3000", "4000"]
    assert [call[0] for call in echo.calls] == [[3000, 4000], [5000]]
    assert echo.calls[0][1] == {"generate_kwargs": GREEDY}


def test_what_whisper_says_of_its_own_calls_is_left_out_and_the_rest_is_not(echo, monkeypatch):
    generation, heard = logging.getLogger("transformers.generation.utils"), []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: heard.append(record.getMessage()))
    monkeypatch.setattr(generation, "handlers", [handler])
    own = "Passing `generation_config` together with generation-related arguments=({'suppress_tokens'}) is deprecated"

    def warns(*_, **__):
        generation.warning(own)
        generation.warning("something else")
        return [{"text": "x"}]

    monkeypatch.setattr("transformers.pipeline", lambda *_, **__: warns)
    warns.type, warns.model = "seq2seq_whisper", echo.model
    Transcriber("some-recognizer").transcribe([torch.zeros(500)], 16000)
    assert heard == ["something else"]
    generation.warning(own)
    assert heard[-1] == own


def test_a_recognizer_is_looked_for_without_being_loaded(tmp_path, monkeypatch):
    def loaded(*_, **__):
        raise AssertionError("a model is loaded")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("transformers.pipeline", loaded)
    monkeypatch.setattr(recognizers, "whisper_from_package", lambda name: fetched.append(name))
    fetched: list[str] = []
    check_recognizer("whisper-base")
    assert fetched == ["base"]
    for config in (WhisperConfig(), Wav2Vec2Config()):
        config.save_pretrained(tmp_path / config.model_type)
        check_recognizer(str(tmp_path / config.model_type))
    Qwen2Config().save_pretrained(tmp_path / "llm")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for name, told in (("llm", "recognizes no speech"), ("broken", "broken"), ("nothing", "neither a folder here")):
        with pytest.raises((ValueError, OSError), match=told):
            check_recognizer(str(tmp_path / name))


def test_recordings_are_brought_to_the_recognizers_rate(echo):
    assert Transcriber("some-recognizer").transcribe([torch.zeros(22050)], 22050) == ["16000"]


def test_a_language_is_named_to_recognizers_of_several_only(echo):
    Transcriber("some-recognizer", language="en").transcribe([torch.zeros(500)], 16000)
    assert echo.calls[-1][1] == {"generate_kwargs": {**GREEDY, "language": "en", "task": "transcribe"}}
    echo.model.generation_config.is_multilingual = False
    Transcriber("some-recognizer", language="en").transcribe([torch.zeros(500)], 16000)
    assert echo.calls[-1][1] == {"generate_kwargs": GREEDY}
    echo.model.generation_config.is_multilingual = True


def test_recordings_beyond_a_window_are_recognized_in_full(echo):
    long = torch.zeros(31 * 16000)
    Transcriber("some-recognizer").transcribe([long], 16000)
    assert echo.calls[-1][1] == {"generate_kwargs": GREEDY, "return_timestamps": True}
    echo.type = "ctc"  # nothing is generated, so that nothing can be said of it
    Transcriber("some-recognizer").transcribe([long], 16000)
    assert echo.calls[-1][1] == {"chunk_length_s": 30}


@pytest.mark.parametrize(("seconds", "cap"), [(0.1, 27), (1, 49), (3, 99), (16, 424), (25, None), (60, None)])
def test_a_short_recording_can_give_no_more_tokens_than_can_be_said(echo, seconds, cap):
    echo.model = SimpleNamespace(
        generation_config=SimpleNamespace(is_multilingual=True), config=SimpleNamespace(max_target_positions=448)
    )
    Transcriber("some-recognizer", language="en").transcribe([torch.zeros(int(seconds * 16000))], 16000)
    assert echo.calls[-1][1]["generate_kwargs"].get("max_length") == cap
    assert echo.calls[-1][1]["generate_kwargs"]["language"] == "en"
