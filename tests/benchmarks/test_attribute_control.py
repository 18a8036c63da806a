"""Voices that were asked for are told from those that were not, and what cannot be told is counted."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch

from audiollm.benchmarks import attribute_control
from audiollm.benchmarks.attribute_control import AttributeControlConfig
from audiollm.benchmarks.leaderboard.result_files import find_results
from audiollm.benchmarks.speech.judges.attributes import (
    ChatJudge,
    JudgeWords,
    median_pitch,
    read_attributes,
    speech_seconds,
)
from audiollm.data.audio.writing import save_audio
from audiollm.data.chat.base import ChatReply
from audiollm.data.chat.opening import open_chat_model

pytestmark = pytest.mark.skipif(find_spec("pyworld") is None, reason="pyworld is not installed")
RATE = 16000
PITCHES = {"low": 100.0, "medium": 160.0, "high": 240.0}
SECONDS = {"slow": 2.0, "moderate": 1.4, "fast": 1.0}


def tone(hertz, seconds):
    """A tone with overtones, so that it has a pitch, between silences."""
    time = torch.arange(round(seconds * RATE)) / RATE
    sound = sum(torch.sin(2 * torch.pi * hertz * harmonic * time) / harmonic for harmonic in range(1, 8)) / 5
    return torch.cat([torch.zeros(1600), sound, torch.zeros(1600)])


def obeys(text, voice, seed):
    return tone(PITCHES.get(voice.pitch, 120.0), SECONDS.get(voice.speed, 1.2)), RATE


class Hearing:
    """Says of each recording what its file name says, but for some."""

    name = "hearing"

    def __init__(self, **odd):
        self.odd = odd
        self.num_heard = 0

    def describe(self, path):
        self.num_heard += 1
        _, name, value = path.stem.split("_")
        if value in self.odd:
            odd = self.odd[value]
            return odd if isinstance(odd, JudgeWords) else JudgeWords(odd)
        return JudgeWords(json.dumps({"linguistic_content": "words", "vocal_attributes": {name: value}}))


def config_of(folder, **changes):
    return AttributeControlConfig(output_dir=str(folder / "out"), **changes)


def test_pitch_and_speed_are_measured_against_recordings_of_the_same_text(tmp_path):
    result = attribute_control.measure(config_of(tmp_path), obeys)
    assert set(result["attributes"]) == {"pitch", "speed"}  # there is no judge
    for name in ("pitch", "speed"):
        assert result["attributes"][name]["accuracy"] == 1, name
        assert result["attributes"][name]["chance"] == pytest.approx(1 / 3)
    pitches = result["attributes"]["pitch"]["median_pitch_hz"]
    assert pitches == pytest.approx(PITCHES, rel=0.02)


def test_a_model_that_does_not_listen_is_no_better_than_unreadable(tmp_path):
    result = attribute_control.measure(
        config_of(tmp_path, attributes=("pitch",)), lambda text, voice, seed: (tone(120.0, 1.0), RATE)
    )
    figures = result["attributes"]["pitch"]
    assert (figures["n_right"], figures["unreadable"]) == (0, figures["n_asked"])
    assert figures["accuracy_of_told"] is None


def test_what_a_judge_cannot_say_is_counted_apart(tmp_path):
    silent = json.dumps({"linguistic_content": "words", "vocal_attributes": {"age": "adult"}})
    judge = Hearing(female="no idea", male=silent)
    (tmp_path / "texts.txt").write_text("one two\n\nthree\n", encoding="utf-8")
    config = config_of(tmp_path, attributes=("gender", "age"), texts=str(tmp_path / "texts.txt"))
    result = attribute_control.measure(config, obeys, judge)
    gender, age = result["attributes"]["gender"], result["attributes"]["age"]
    assert gender["confusion"]["female"]["unreadable"] == 2
    assert gender["confusion"]["male"]["not said"] == 2
    assert (gender["n_asked"], gender["n_told"], gender["accuracy"]) == (4, 0, 0)
    assert (age["n_asked"], age["accuracy"]) == (6, 1)
    again = Hearing()
    assert attribute_control.measure(config, obeys, again)["attributes"] == result["attributes"]
    assert again.num_heard == 0  # the judge's words are kept


def test_words_that_were_cut_or_repaired_are_told(tmp_path, capsys):
    cut = JudgeWords('{"linguistic_content": "w", "vocal_attributes": {"gender": "female"', is_cut=True)
    judge = Hearing(female=cut, male="{'linguistic_content': 'w', 'vocal_attributes': {'gender': 'man'}}")
    (tmp_path / "texts.txt").write_text("one\n", encoding="utf-8")
    config = config_of(tmp_path, attributes=("gender",), texts=str(tmp_path / "texts.txt"))
    result = attribute_control.measure(config, obeys, judge)
    figures = result["attributes"]["gender"]
    of_value = {one["value"]: one for one in result["recordings"]}
    assert (figures["cut"], of_value["female"]["is_cut"], of_value["male"]["is_cut"]) == (1, True, False)
    assert of_value["male"]["repairs"]
    assert figures["repaired"] == sum(
        bool(one["repairs"]) and one["heard"] != "unreadable" for one in of_value.values()
    )
    attribute_control.show_confusions(result)
    assert "1 were cut" in " ".join(capsys.readouterr().out.split())
    assert (
        attribute_control.measure(config, obeys, Hearing())["attributes"] == result["attributes"]
    )  # kept with its mark


def test_a_chat_judge_tells_that_its_answer_was_cut(tmp_path):
    class Model:
        name = "m"

        def ask(self, messages, max_tokens):
            return ChatReply("{", is_cut=True)

    save_audio(tmp_path / "a.wav", tone(100.0, 1.0), RATE)
    assert ChatJudge(Model()).describe(tmp_path / "a.wav").is_cut


def test_what_was_not_spoken_is_missing_and_the_rest_is_kept(tmp_path):

    def breaks(text, voice, seed):
        if voice.gender == "male":
            raise RuntimeError("out of memory")
        return obeys(text, voice, seed)

    result = attribute_control.measure(config_of(tmp_path, attributes=("gender",)), breaks, Hearing())
    figures = result["attributes"]["gender"]
    assert figures["missing"] == figures["n_asked"] / 2
    assert figures["accuracy"] == 0.5
    assert "out of memory" in next(iter(result["failures"].values()))


def test_all_values_of_a_text_share_a_seed(tmp_path):
    asked = []

    def note(text, voice, seed):
        asked.append((text, seed))
        return obeys(text, voice, seed)

    attribute_control.measure(config_of(tmp_path), note)
    assert len(set(asked)) == len({text for text, _ in asked}) == len(attribute_control.DEFAULT_TEXTS)


@pytest.mark.parametrize("is_loaded", [False, True])
def test_what_a_run_keeps_beside_its_result_is_known_to_the_leaderboard(is_loaded, tmp_path, monkeypatch):
    facts = {"model": "m", "model_revision": "r", "tokenizer_fingerprint": "t", "decoder_fingerprint": "d"}
    monkeypatch.setattr(attribute_control, "_speaker", lambda config: (obeys, facts))
    config = config_of(tmp_path, attributes=("gender",))
    result = attribute_control.measure(config, None if is_loaded else obeys, Hearing())
    assert result.get("decoder_fingerprint") == ("d" if is_loaded else None)
    found = find_results(tmp_path)
    assert ([one.kind for one in found.results], found.unread) == (["attribute control"], [])
    if is_loaded:
        facts["decoder_fingerprint"] = "another"
        with pytest.raises(ValueError, match=r"begun with another decoder_fingerprint \(d, now another\)"):
            attribute_control.measure(config, None, Hearing())


def test_judged_attributes_need_a_judge(tmp_path):
    with pytest.raises(ValueError, match="need a judge"):
        attribute_control.measure(config_of(tmp_path, attributes=("gender",)), obeys)
    with pytest.raises(ValueError, match="'accent'"):
        config_of(tmp_path, attributes=("accent",))


def test_a_chat_model_that_hears_is_asked_of_the_voice(tmp_path, chat_server):
    pytest.importorskip("openai")
    chat_server.answer = lambda request: (
        '```json\n{"linguistic_content": "a", "vocal_attributes": {"gender": "man"}}```'
    )
    save_audio(tmp_path / "a.wav", tone(100.0, 1.0), RATE)
    judge = ChatJudge(open_chat_model(chat_server.url, "tiny", hears=True))
    words = judge.describe(tmp_path / "a.wav")
    assert not words.is_cut
    assert read_attributes(words.text).values == {"gender": "male", "age": None, "emotion": None}
    assert read_attributes(words.text.replace('"', "'")).repairs
    [message] = chat_server.requests[0]["messages"]
    assert [part["type"] for part in message["content"]] == ["input_audio", "text"]


def test_measurements_of_silence_and_of_a_tone(tmp_path):
    save_audio(tmp_path / "silence.wav", torch.zeros(RATE), RATE)
    save_audio(tmp_path / "tone.wav", tone(200.0, 1.0), RATE)
    assert median_pitch(tmp_path / "silence.wav") is None
    assert speech_seconds(tmp_path / "silence.wav") == 0
    assert median_pitch(tmp_path / "tone.wav") == pytest.approx(200, rel=0.02)
    assert speech_seconds(tmp_path / "tone.wav") == pytest.approx(1, abs=0.06)
