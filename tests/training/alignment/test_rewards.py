"""What answers are worth, by rewards whose ears and judges are made up."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from audiollm.benchmarks.speech.judges.attributes import JudgeWords
from audiollm.chat.segments import AudioSegment, TextSegment
from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from audiollm.data.voices.instructions import speech_request, text_of_request
from audiollm.data.voices.speech_records import text_to_be_said
from audiollm.tokenizer.base import Codes
from audiollm.training.alignment.rewards.base import Answer, checked_worth
from audiollm.training.alignment.rewards.registry import REWARDS, check_reward, make_rewards
from audiollm.training.alignment.rewards.sounds import AnswerSounds
from audiollm.training.alignment.rewards.spoken import SpokenWords, VoiceMatch, wanted_voice
from audiollm.training.alignment.rewards.written import AnswerForm, AnswerLength, RightAnswer

SOUNDS: Any = None  # of rewards that do not listen


def record(answer: Any = "blue", task: str | None = None, question: str = "What?", **metadata: Any) -> Conversation:
    parts = [TextPart(answer)] if isinstance(answer, str) else [AudioPart(codes=tuple(answer))]
    messages = [Message("user", [TextPart(question)]), Message("assistant", parts)]
    return Conversation("one", messages, task, metadata=metadata)


def written(text: str, conversation: Conversation, num_tokens: int = 3, is_cut: bool = False) -> Answer:
    return Answer(conversation, [7] * num_tokens, [TextSegment(text, [7] * num_tokens)] if text else [], 4, is_cut)


def spoken(codes: list[int], conversation: Conversation, problems: tuple[str, ...] = ()) -> Answer:
    return Answer(conversation, [7] * len(codes), [AudioSegment(torch.tensor(codes), problems)], 4, bool(problems))


class Ears:
    """Sounds that are the codes themselves, as numbers of samples."""

    sample_rate = 16000

    def check(self) -> None:
        pass

    def of(self, answers: list[Answer]) -> list[Tensor | None]:
        codes = [answer.spoken_codes for answer in answers]
        return [None if one is None else torch.cat(one).float() / 100 for one in codes]


class Recognizer:
    """Hears one word a code."""

    source = "made up"
    words = ("red", "green", "blue")

    def transcribe(self, waveforms: list[Tensor], sample_rate: int) -> list[str]:
        return [" ".join(self.words[round(100 * code)] for code in wave.tolist()) for wave in waveforms]


class Judge:
    """Always hears the same voice."""

    def __init__(self, words: str) -> None:
        self.name, self._words = "made up", words

    def describe(self, path: Path) -> JudgeWords:
        assert path.stat().st_size
        return JudgeWords(self._words)


def test_options_of_questions_are_graded_as_benchmarks_grade_them() -> None:
    asked = record("blue", choices=["red", "blue", "green"])
    reward = RightAnswer(SOUNDS)
    assert reward([written("The answer is (B) blue.", asked), written("red or blue", asked)]) == [1.0, 0.0]
    assert RightAnswer(SOUNDS, mode="official")([written("it is blue", asked)]) == [1.0]
    with pytest.raises(ValueError, match="choices are 'red'"):
        reward([written("red", record("red", choices="red"))])


def test_free_answers_are_compared_whole_and_transcriptions_by_their_words() -> None:
    reward = RightAnswer(SOUNDS)
    assert reward([written("Blue!", record("blue")), written("blue or red", record("blue"))]) == [1.0, 0.0]
    said = record("the red cat sits", task="transcribe")
    assert reward([written("the red dog sits", said), written("", said)]) == [0.75, 0.0]
    assert reward([written("blue", record([1, 2]))]) == [None]


def test_what_is_heard_counts_and_broken_audio_is_worth_nothing() -> None:
    reward = SpokenWords(Ears(), recognizer=Recognizer())  # type: ignore[arg-type]
    request = record([0, 1], task="speak", question=speech_request("Red green.", "a man, slowly")[0])
    answers = [spoken([0, 1], request), spoken([0, 2], request), spoken([0], request, ("unclosed",))]
    assert reward(answers) == [1.0, 0.5, 0.0]
    assert reward([spoken([2], record([0], text="blue"))]) == [1.0]
    assert reward([spoken([2], record([0]))]) == [None]  # nobody knows what it should say


def test_the_text_of_a_request_is_found_in_it() -> None:
    for text in ("Good morning.", "Two lines.\n\nAnd a third."):
        assert text_of_request(speech_request(text)[0]) == text
        assert text_of_request(speech_request(text, "an elderly man", key="k")[0]) == text
    assert text_to_be_said(record("x", question=speech_request("No task.")[0])) is None
    answer = [TextPart("one "), AudioPart(codes=[1]), TextPart("two"), AudioPart(codes=[2])]
    turns = [Message("user", [AudioPart(codes=[3])]), Message("assistant", answer)]
    assert text_to_be_said(Conversation("one", turns, "speech_to_speech_interleaved")) == "one two"
    assert text_to_be_said(Conversation("one", turns, "chat")) is None


def test_the_voice_is_the_share_of_what_was_asked_for() -> None:
    heard = '{"linguistic_content": "x", "vocal_attributes": {"gender": "male", "age": "adult", "emotion": "anger"}}'
    reward = VoiceMatch(Ears(), judge=Judge(heard))  # type: ignore[arg-type]
    wanted = record([0], voice={"gender": "male", "emotion": "sadness", "speed": "slow"})
    assert wanted_voice(wanted) == {"gender": "male", "emotion": "sadness"}
    answers = [spoken([0], wanted), spoken([0], record([0])), spoken([0], wanted, ("unclosed",))]
    assert reward(answers) == [0.5, None, 0.0]
    assert VoiceMatch(Ears(), judge=Judge("no idea"))([spoken([0], wanted)]) == [0.0]  # type: ignore[arg-type]


def test_length_is_best_at_the_records_own_and_nothing_for_a_cut_answer() -> None:
    lengths = [written("x", record(), num_tokens) for num_tokens in (2, 4, 6, 8, 20)]
    assert AnswerLength(SOUNDS)(lengths) == [0.5, 1.0, 0.5, 0.0, 0.0]
    assert AnswerLength(SOUNDS, tokens=8)(lengths) == [0.25, 0.5, 0.75, 1.0, 0.0]
    assert AnswerLength(SOUNDS)([written("x", record(), 4, is_cut=True)]) == [0.0]


def test_form_is_that_of_the_records_own_answer() -> None:
    text, audio = record("blue"), record([1, 2])
    answers = [written("x", text), written("", text), written("x", text, is_cut=True), spoken([1], text)]
    assert AnswerForm(SOUNDS)(answers) == [1.0, 0.0, 0.0, 0.0]
    assert AnswerForm(SOUNDS)([spoken([1], audio), spoken([], audio, ("empty",)), written("x", audio)]) == [1.0, 0, 0]
    assert AnswerForm(SOUNDS, modalities=["text", "audio"])([spoken([1], text)]) == [1.0]


def test_rewards_are_chosen_by_name_and_wrong_options_are_named() -> None:
    [reward] = make_rewards([("length", {"tokens": 3})], SOUNDS)
    assert isinstance(reward, AnswerLength)
    for name, options, told in (
        ("wrr", {}, "no reward 'wrr'; there are .*wer"),
        ("length", {"token": 3}, "length takes no option 'token'; it has tokens"),
        ("voice", {}, "voice needs the option judge"),
    ):
        with pytest.raises(ValueError, match=told):
            check_reward(name, options)


def test_a_package_can_add_a_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REWARDS, "_factories", dict(REWARDS._factories))
    REWARDS.register("always", lambda sounds, **options: lambda answers: [options["worth"]] * len(answers))
    [reward] = make_rewards([("always", {"worth": 0.5})], SOUNDS)
    assert reward([written("x", record())] * 2) == [0.5, 0.5]


def test_every_reward_hears_the_same_sounds_and_they_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = AnswerSounds(None)  # type: ignore[arg-type]
    decoded: list[Any] = []

    class Decoder:
        sample_rate = 24000

        def decode(self, rows: list[list[Tensor]]) -> list[list[Tensor]]:
            decoded.append(rows)
            return [[codes.float() for codes in row] for row in rows]

    monkeypatch.setattr(AnswerSounds, "_decoder", Decoder())
    answers = [spoken([1, 2], record([0])), written("x", record())]
    first, second = sounds.of(answers), sounds.of(answers)
    assert first is second
    assert len(decoded) == 1
    assert first[1] is None
    assert first[0] is not None
    assert first[0].tolist() == [1.0, 2.0]
    assert sounds.sample_rate == 24000


@pytest.mark.parametrize("speaks_in_turns", [True, False])
def test_an_answer_in_turns_is_heard_as_one_sound(speaks_in_turns: bool) -> None:
    decoded: list[list[int]] = []

    class Tokenizer:
        can_decode = True
        output_sample_rate = 24000

        def decode(self, codes: Codes, **_: Any) -> list[Tensor]:
            decoded.extend(codes[n][0].tolist() for n in range(len(codes)))
            return [codes[n][0].float() for n in range(len(codes))]

    model: Any = SimpleNamespace(
        processor=SimpleNamespace(audio_tokenizer=Tokenizer()), speaks_in_turns=speaks_in_turns
    )
    segments = [AudioSegment(torch.tensor(codes)) for codes in ([1, 2], [3])]
    [sound] = AnswerSounds(model).of([Answer(record(), [7] * 3, segments, 4, is_cut=False)])
    assert decoded == ([[1, 2, 3]] if speaks_in_turns else [[1, 2], [3]])
    assert sound is not None
    assert sound.tolist() == [1.0, 2.0, 3.0]


def test_a_reward_that_gives_no_number_is_named_with_the_record() -> None:
    answers = [written("x", record())] * 2
    assert checked_worth("mine", answers, [0.5, None]) == [0.5, None]
    for worth in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match=f"reward mine is {worth} for an answer to .+: it must give a number"):
            checked_worth("mine", answers, [0.5, worth])
    with pytest.raises(ValueError, match="reward mine gave 1 numbers for 2 answers"):
        checked_worth("mine", answers, [0.5])


# --- analyses --------------------------------------------------------------------------------------------------------


SAP = {
    "linguistic_content": "Who is there",
    "vocal_attributes": {"gender": "female", "emotion": "fear"},
    "auditory_scenes": {"summary": "Rain falls.", "events": [{"class": "rain", "type": "persistent"}]},
}


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        (json.dumps(SAP), 1.0),
        (json.dumps({**SAP, "linguistic_content": "Who is here"}), (2 / 3 + 1 + 1) / 3),
        (json.dumps({**SAP, "vocal_attributes": {"gender": "male", "emotion": "fear"}}), (1 + 0.5 + 1) / 3),
        (json.dumps({**SAP, "auditory_scenes": {"summary": "Rain stops."}}), (1 + 1 + 2 * 1 / (3 + 2)) / 3),
        ("rain", 0.0),
    ],
)
def test_an_analysis_is_worth_what_it_shares_with_its_sap_record(text: str, worth: float) -> None:
    [reward] = make_rewards([("sap", {})], SOUNDS)
    assert reward([written(text, record(json.dumps(SAP), "sap", sap=SAP))]) == [pytest.approx(worth)]


def test_consistency_counts_what_a_record_tells_and_no_more() -> None:
    [reward] = make_rewards([("sap", {})], SOUNDS)
    wordless = {"linguistic_content": None, "auditory_scenes": {"summary": "Rain falls."}}
    silent = written(json.dumps(wordless), record("", "sap", sap=json.dumps(wordless)))
    made_up = written(json.dumps(wordless | {"linguistic_content": "hello"}), record("", "sap", sap=wordless))
    words = written("Who is there", record("", "asr", sap=SAP))
    assert reward([silent, made_up, words]) == [1.0, 0.5, 1.0]
    assert reward([written("x", record("", "sap")), written("x", record("", "question", sap=SAP))]) == [None, None]
    with pytest.raises(ValueError, match=r"one: sap is 3: give an object"):
        reward([written("x", record("", "sap", sap=3))])


class Votes:
    """A judge that agrees where the reply is the truth."""

    name = "made up"

    def ask(self, messages: Any, **options: Any) -> Any:
        text = str(messages[0].text)
        true, reply = text.split("True: ")[1].split("\n")[0], text.split("=====\n")[1].strip()
        return SimpleNamespace(text="Yes." if true == reply else "no", is_cut=False)


def test_a_judge_says_whether_an_answer_agrees() -> None:
    [reward] = make_rewards([("judge", {"judge": Votes(), "votes": 3, "concurrency": 2})], SOUNDS)
    answers = [written("blue", record("blue")), written("red", record("blue")), written("red", record([1, 2]))]
    assert reward(answers) == [1.0, 0.0, None]
