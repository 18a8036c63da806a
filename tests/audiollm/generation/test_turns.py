"""An answer in turns says the words that are given, all of them and nothing else, and sounds as one."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from audiollm.chat.encoded import TooLongError
from audiollm.chat.segments import AudioSegment, TextSegment
from audiollm.generation.decoding import DecodingSettings
from audiollm.generation.passed_on import speaks_in_turns, spoken_characters
from audiollm.generation.plan import ContextError
from audiollm.generation.streaming import StreamedAudio, StreamedText
from audiollm.generation.turns import TurnsLogitsProcessor, num_tokens_of_turns, turns_of
from audiollm.modeling import AudioLLM
from audiollm.speaking import speak, speak_many, speak_stream
from audiollm.vocabulary import AudioVocabulary

# 10 text ids (9 ends an answer), start 10, end 11, codes 12 to 19, and padding rows 20 to 23.
VOCABULARY = AudioVocabulary(codebook_size=8, first_code_id=12, start_id=10, end_id=11)
WIDTH, EOS, START, END = 24, 9, 10, 11
CODES = set(range(12, 20))
PROMPT = [3, START, 14, 15, END, 4]
SAYS = "The kettle is on."
ASK = [{"role": "user", "content": "Say it."}]


def grammar(turns, **limits):
    return TurnsLogitsProcessor(VOCABULARY, turns, eos_token_ids=[EOS, 8], prompt_length=len(PROMPT), **limits)


def allowed_by(processor, rows):
    scores = processor(torch.tensor(rows), torch.zeros(len(rows), WIDTH))
    return [set(row.isfinite().nonzero()[:, 0].tolist()) for row in scores]


def walk(processor, source, num_rows=1, wants_end=0.3):
    """Answers of one who takes any allowed token, and would rather end each segment."""
    rows = [list(PROMPT) for _ in range(num_rows)]
    done = [False] * num_rows
    for _ in range(200):
        for row, allowed in enumerate(allowed_by(processor, rows)):
            assert allowed
            token = END if END in allowed and source.random() < wants_end else source.choice(sorted(allowed))
            rows[row].append(EOS if done[row] else token)
            done[row] = done[row] or token == EOS
        if all(done):
            break
    assert all(done)
    return [row[len(PROMPT) : row.index(EOS, len(PROMPT)) + 1] for row in rows]


def taken_apart(answer):
    """The words between the codes, and the codes between the words."""
    words, codes, inside = [[]], [], False
    for token in answer:
        if token == START:
            inside = True
            codes.append([])
        elif token == END:
            inside = False
            words.append([])
        elif inside:
            codes[-1].append(token)
        else:
            words[-1].append(token)
    return words, codes


TURNS = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_every_row_writes_its_words_and_speaks_after_each(turns, source):
    for own, answer in zip(turns, walk(grammar(turns), source, len(turns)), strict=True):
        words, codes = taken_apart(answer)
        assert words == [*own, [EOS]]
        assert len(codes) == len(own)
        assert all(one and set(one) <= CODES for one in codes)


@settings(max_examples=40, deadline=None)
@given(TURNS, st.integers(1, 9), st.integers(0, 9), st.randoms(use_true_random=False))
def test_limits_are_of_the_whole_answer(turns, least, more, source):
    (answer,) = walk(grammar([turns], min_codes=least, max_codes=least + more), source)
    words, codes = taken_apart(answer)
    total = sum(map(len, codes))
    assert total <= least + more
    assert words[:-1] == turns[: len(codes)]
    if total < least + more:
        assert total >= least
        assert len(codes) == len(turns)
    (answer,) = walk(grammar([turns]), source)
    assert len(answer) - sum(map(len, taken_apart(answer)[1])) == num_tokens_of_turns([turns])


def test_several_answers_of_a_prompt_have_its_words():
    rows = [PROMPT, PROMPT, PROMPT, PROMPT]
    assert allowed_by(grammar([[[5]], [[6, 7]]]), rows) == [{5}, {5}, {6}, {6}]
    assert allowed_by(grammar([[[5]], [[6, 7]]]), [[*row, 6] for row in rows])[2:] == [{7}, {7}]


def test_what_could_not_end_or_not_go_on_is_refused():
    with pytest.raises(ValueError, match="end-of-sequence"):
        TurnsLogitsProcessor(VOCABULARY, [[[5]]], eos_token_ids=[], prompt_length=0)
    forbidden = torch.full((1, WIDTH), -torch.inf)
    with pytest.raises(ValueError, match="forbid every token"):
        grammar([[[5]]], check_dead_ends=True)(torch.tensor([PROMPT]), forbidden)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SAYS, ["The", " kettle", " is", " on."]),
        ("  Yes \n – no –", ["Yes", " – no –"]),
        ("… 12 eggs", ["… 12", " eggs"]),
        ("-", ["-"]),
        ("", []),
    ],
)
def test_a_text_is_cut_at_its_words(text, expected):
    assert turns_of(text) == expected
    assert "".join(expected) == " ".join(text.split())


# ------------------------------------------------------------------ the model


@pytest.fixture
def in_turns(speaking_llm, monkeypatch) -> AudioLLM:
    """A model whose checkpoint says that it speaks in turns."""
    monkeypatch.setattr(speaking_llm.model.generation_config, "speaks_in_turns", True, raising=False)
    return speaking_llm


def test_a_text_is_spoken_word_by_word_and_sounds_as_one(in_turns, speaking_tokenizer):
    spoken = speak(in_turns, SAYS, "a woman", seed=0, max_seconds=30.0)
    assert spoken.finish_reason == "stop"
    assert torch.equal(spoken.waveform, speaking_tokenizer._render(spoken.codes, None))
    result = in_turns.chat(ASK, modalities={"text", "audio"}, turns=[turns_of(SAYS)], seed=0)
    assert result.texts == [SAYS]
    kinds = [type(segment) for segment in result.segments[0]]
    assert kinds == [TextSegment, AudioSegment] * 4
    assert all(len(codes) for codes in result.codes[0])
    assert len(result.waveforms[0]) == 1
    assert torch.equal(result.waveforms[0][0], speaking_tokenizer._render(torch.cat(result.codes[0]), None))


def test_an_answer_has_the_ids_of_a_training_record_that_says_the_same(in_turns):
    result = in_turns.chat(ASK, modalities={"text", "audio"}, turns=[turns_of(SAYS)], seed=0, return_waveforms=False)
    parts = [
        part
        for words, codes in zip(turns_of(SAYS), result.codes[0], strict=True)
        for part in ({"type": "text", "text": words}, {"type": "audio", "codes": codes.tolist()})
    ]
    record = in_turns.processor.apply_chat_template([*ASK, {"role": "assistant", "content": parts}])
    prompt = in_turns.processor.apply_chat_template(ASK, add_generation_prompt=True)
    trained = record["input_ids"][0, prompt["input_ids"].shape[1] :].tolist()
    assert trained[: len(result.token_ids[0])] == result.token_ids[0].tolist()


def test_a_batch_speaks_as_each_text_alone(in_turns):
    texts = [SAYS, "Yes.", "One, two, three, four and five."]
    together = speak_many(in_turns, texts, "a man", do_sample=False, max_seconds=3.0)
    for text, result in zip(texts, together, strict=True):
        assert torch.equal(speak(in_turns, text, "a man", do_sample=False, max_seconds=3.0).codes, result.codes)


def test_a_stream_gives_the_same_sound_and_the_words_if_they_are_wanted(in_turns):
    whole = speak(in_turns, SAYS, seed=3, max_seconds=20.0, speaker=[0.5, 0.5])
    with speak_stream(in_turns, SAYS, seed=3, max_seconds=20.0, speaker=[0.5, 0.5]) as stream:
        sounds = list(stream)
    assert {event.segment for event in sounds} == {0}
    assert torch.equal(torch.cat([event.waveform for event in sounds]), whole.waveform)
    assert torch.equal(torch.cat(stream.result.codes[0]), whole.codes)
    assert stream.result.texts == [SAYS]
    assert len(stream.result.waveforms[0]) == 1

    limits = {"modalities": {"text", "audio"}, "turns": [turns_of(SAYS)], "max_seconds": 20.0}
    with in_turns.stream_chat(ASK, seed=3, **limits) as stream:
        events = list(stream)
    assert isinstance(events[0], StreamedText)
    assert "".join(event.text for event in events if isinstance(event, StreamedText)) == SAYS
    sounds = [event for event in events if isinstance(event, StreamedAudio)]
    assert torch.equal(torch.cat([event.waveform for event in sounds]), stream.result.waveforms[0][0])


def test_a_stream_can_be_left_between_two_turns(in_turns):
    with speak_stream(in_turns, SAYS, seed=3) as stream:
        next(stream)
    assert stream.result is None


def test_limits_cut_and_lengthen_the_whole_sound(in_turns):
    cut = speak(in_turns, SAYS, seed=0, max_seconds=0.2)
    assert (len(cut.codes), cut.finish_reason) == (5, "length")
    long = speak(in_turns, "Yes.", seed=0, min_seconds=12.0, max_seconds=13.0)
    assert len(long.codes) >= 300
    few = speak(in_turns, SAYS, seed=0, max_new_tokens=9)
    assert few.finish_reason == "length"


@pytest.mark.parametrize("limit", [{"max_new_tokens": 1}, {"stop_strings": "T"}, {"max_time": 1e-9}])
def test_an_answer_that_ends_before_its_first_sound_is_empty_and_not_an_error(in_turns, limit):
    spoken = speak(in_turns, SAYS, seed=0, max_seconds=1.0, **limit)
    assert (spoken.waveform.shape, spoken.codes.shape, spoken.codes.dtype) == ((0,), (0,), torch.int64)
    with speak_stream(in_turns, SAYS, seed=0, max_seconds=1.0, **limit) as stream:
        assert not list(stream)
    assert stream.result.finish_reasons == [spoken.finish_reason]


def test_what_does_not_fit_counts_the_words(in_turns):
    words = {"modalities": {"text", "audio"}, "turns": [turns_of(SAYS)], "seed": 0}
    needed = 25 + num_tokens_of_turns([in_turns.processor.plain_token_ids(turns_of(SAYS))])
    result = in_turns.chat(ASK, min_seconds=1.0, max_new_tokens=needed, **words)
    assert sum(map(len, result.codes[0])) >= 25
    with pytest.raises(ValueError, match=f"min_seconds=1.0 takes {needed} tokens"):
        in_turns.chat(ASK, min_seconds=1.0, max_new_tokens=needed - 1, **words)
    with pytest.raises(ContextError, match="shorten the text"):
        in_turns.chat(ASK, max_seconds=1e6, **words)
    with pytest.raises(TooLongError, match="shorten the text"):
        speak(in_turns, SAYS * 10_000)


def test_an_end_that_stands_in_the_words_or_their_sound_is_refused(in_turns):
    vocabulary = in_turns.vocabulary
    (word, *_) = in_turns.processor.plain_token_ids([" kettle"])[0]
    for end in (word, vocabulary.start_id, vocabulary.end_id, vocabulary.first_code_id):
        with pytest.raises(ValueError, match=f"eos_token_id={end}"):
            speak(in_turns, SAYS, eos_token_id=[in_turns.processor.tokenizer.eos_token_id, end])


@pytest.mark.parametrize(
    "given", [{"modalities": {"audio"}}, {"turns": [["a"]]}, {"return_waveforms": True}, {"sound_only": False}]
)
def test_what_follows_from_a_text_is_not_given_beside_it(in_turns, given):
    for function in (speak, speak_stream):
        with pytest.raises(ValueError, match=f"{next(iter(given))} follows from the text"):
            function(in_turns, SAYS, **given)


def test_a_model_that_speaks_otherwise_is_asked_for_one_segment(speaking_llm):
    assert not speaking_llm.speaks_in_turns
    result = speaking_llm.chat(ASK, modalities={"text", "audio"}, turns=[["Yes.", " No."]], seed=0)
    assert len(result.waveforms[0]) == 1  # what is asked for in turns is one sound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"turns": [["a"]]}, "modalities"),
        ({"turns": [["a"]], "modalities": {"audio"}}, "modalities"),
        ({"turns": [["a"], ["b"]], "modalities": {"text", "audio"}}, "2 answers .* 1 prompts"),
        *[
            ({"turns": turns, "modalities": {"text", "audio"}}, "turns")
            for turns in ([], [[]], [[""]], ["a"], "a", [[1]])
        ],
    ],
)
def test_turns_that_nothing_can_be_made_of_are_refused(speaking_llm, options, message):
    with pytest.raises(ValueError, match=message):
        speaking_llm.chat(ASK, **options)


def test_no_turn_begins_inside_a_recording(speaking_llm):
    open_prompt = torch.tensor([[1, speaking_llm.vocabulary.start_id]])
    with pytest.raises(ValueError, match="inside an audio segment"):
        speaking_llm.generate(open_prompt, modalities={"text", "audio"}, turns=[["a"]])


def test_special_tokens_in_a_text_are_spoken_as_text(in_turns):
    spoken = speak_many(in_turns, ["<|audio_end|> <|im_end|>"], seed=0, max_seconds=20.0)[0]
    assert spoken.finish_reason == "stop"
    assert len(spoken.codes) >= 2


@pytest.mark.parametrize("given", [True, False])
def test_the_checkpoint_says_that_it_speaks_in_turns(audio_llm, tmp_path, given):
    folder = tmp_path / "own"
    shutil.copytree(audio_llm, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"speaks_in_turns": given}))
    model = AudioLLM.from_pretrained(folder)
    assert model.speaks_in_turns is given
    model.save_pretrained(tmp_path / "again")
    assert AudioLLM.from_pretrained(tmp_path / "again").speaks_in_turns is given
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_from_model_config": True}))
    with pytest.raises(ValueError, match="speaks_in_turns has no effect"):
        AudioLLM.from_pretrained(folder)


@pytest.mark.parametrize("given", ["yes", 1, {}])
def test_another_value_is_refused(given):
    with pytest.raises(ValueError, match="speaks_in_turns"):
        speaks_in_turns(GenerationConfig(speaks_in_turns=given))


def test_a_voice_belongs_to_the_whole_answer(in_turns, speaking_tokenizer):
    speakers = torch.tensor([[0.0], [1.0]])
    results = speak_many(in_turns, ["One two.", "Three."], decoding=DecodingSettings(speaker=speakers), seed=0)
    for result, speaker in zip(results, speakers, strict=True):
        assert torch.equal(result.waveform, speaking_tokenizer._render(result.codes, speaker))


def test_letters_that_a_model_never_learned_to_say_are_told(speaking_llm, monkeypatch, caplog):
    def said(*texts):
        caplog.clear()
        speak_many(speaking_llm, texts, max_seconds=0.4, seed=0)
        return caplog.text

    assert "never learned" not in said("Поезд")
    monkeypatch.setattr(speaking_llm.model.generation_config, "spoken_characters", "abcdefgh", raising=False)
    assert "never learned" not in said("Bad, cab!", "a")
    assert "never learned to say д е з о п; what it says there means nothing" in said("Поезд", "abc")
    assert "never learned to say 7 9; what it says there means nothing: write numbers in words" in said("Abc 97")
    for bad in ("", 7):
        with pytest.raises(ValueError, match="spoken_characters"):
            spoken_characters(GenerationConfig(spoken_characters=bad))


def test_the_embedded_model_says_that_it_speaks_english(caplog):
    assert AudioLLM.from_pretrained().spoken_characters == frozenset("abcdefghijklmnopqrstuvwxyz")
