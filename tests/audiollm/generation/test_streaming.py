"""A stream tells what the result tells, only earlier; whoever stops reading stops the model, and no error is lost."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor

from audiollm.generation.decoding import DecodingSettings
from audiollm.generation.streaming import SegmentStreamer, StreamedAudio, StreamedCodes, StreamedText
from audiollm.modeling import AudioLLM
from audiollm.processing import AudioLLMProcessor
from audiollm.vocabulary import extend

ASK = [{"role": "user", "content": "Speak."}]


# Ids to pieces


@pytest.fixture
def processor(text_tokenizer, make_llm, audio_tokenizer):
    extend(make_llm(), text_tokenizer, 64)
    return AudioLLMProcessor(text_tokenizer, audio_tokenizer=audio_tokenizer)


def stream(processor, prompt, answer, chunk_codes=25):
    streamer = SegmentStreamer(processor, chunk_codes, timeout_seconds=5)

    def feed():
        streamer.put(torch.tensor([prompt]))
        for token_id in answer:
            streamer.put(torch.tensor([token_id]))
        streamer.end()

    thread = threading.Thread(target=feed)
    thread.start()
    events = list(streamer)
    thread.join()
    return events


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=12), st.lists(st.integers(0, 63), max_size=9)), max_size=5), st.integers(1, 4)
)
def test_a_stream_joins_to_the_answer_in_whole_characters_and_bounded_chunks(processor, parts, chunk_codes):
    answer = []
    for part in parts:
        text_ids = processor.text_tokenizer(part)["input_ids"] if isinstance(part, str) else []
        answer += text_ids if isinstance(part, str) else processor.vocabulary.wrap(part)
    events = stream(processor, [1, 2], answer, chunk_codes)
    text = "".join(event.text for event in events if isinstance(event, StreamedText))
    whole = processor.split(answer)
    assert text == "".join(segment.text for segment in whole if not hasattr(segment, "codes"))
    assert "\ufffd" not in text
    streamed, current = [], []
    for event in events:
        if isinstance(event, StreamedCodes):
            assert len(event.codes) <= chunk_codes
            current += event.codes.tolist()
            if event.is_last:
                streamed.append(current)
                current = []
    assert not current
    assert streamed == [segment.codes.tolist() for segment in whole if hasattr(segment, "codes")]


def test_a_stream_follows_one_row_only(processor):
    with pytest.raises(ValueError, match="one answer, not 2"):
        SegmentStreamer(processor).put(torch.zeros(2, 3, dtype=torch.long))


# Text and sound


class Script(LogitsProcessor):
    """Makes the model say given ids; ``hooks`` are called before the id of that number is chosen."""

    def __init__(self, token_ids, prompt_length, hooks=None):
        self.token_ids, self.prompt_length, self.hooks = token_ids, prompt_length, hooks or {}
        self.num_steps = 0

    def __call__(self, input_ids, scores):
        place = input_ids.shape[1] - self.prompt_length
        self.num_steps = place + 1
        if place in self.hooks:
            self.hooks[place]()
        scores = scores.clone()
        scores[:, self.token_ids[place]] += 1000
        return scores


def opened(audio_llm, token_ids, hooks=None, **options):
    """A stream of an answer that says ``token_ids``, and the script behind it."""
    inputs = audio_llm.processor.apply_chat_template(ASK, add_generation_prompt=True)
    script = Script(token_ids, inputs["input_ids"].shape[1], hooks)
    options = {"modalities": {"text", "audio"}, "max_new_tokens": len(token_ids), "do_sample": False, **options}
    return audio_llm.stream(**inputs, logits_processor=[script], **options), script


def spoken(audio_llm, *parts):
    """Ids of texts and lists of codes, and the end of the turn."""
    tokenizer = audio_llm.processor.tokenizer
    ids = []
    for part in parts:
        ids += tokenizer(part)["input_ids"] if isinstance(part, str) else audio_llm.vocabulary.wrap(part)
    return [*ids, tokenizer.eos_token_id]


def worker_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("audiollm-generate")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    assert worker_threads() == []


@pytest.mark.parametrize("chunk_codes", [1, 4, 100])
def test_text_and_sound_come_in_order_and_join_to_the_result(speaking_llm, speaking_tokenizer, chunk_codes):
    clips = [list(range(10)), [63, 5], [7]]
    answer = spoken(speaking_llm, "Hear: ", clips[0], clips[1], "é and ", clips[2], "bye")
    stream, _ = opened(speaking_llm, answer, chunk_codes=chunk_codes)
    assert stream.result is None
    kinds, text, pieces = [], "", {}
    for event in stream:
        if isinstance(event, StreamedText):
            text += event.text
            kinds.append("text")
        else:
            assert event.sample_rate == 22050
            pieces.setdefault(event.segment, []).append(event.waveform)
            kinds.append(event.segment)
    assert list(dict.fromkeys(kinds)) == ["text", 0, 1, 2]
    assert text == stream.result.texts[0] == "Hear: é and bye"
    for number, clip in enumerate(clips):
        offline = torch.cat(list(speaking_tokenizer.decode_stream(iter([torch.tensor(clip)]))))
        assert torch.equal(torch.cat(pieces[number]), offline)
        assert torch.equal(stream.result.waveforms[0][number], offline)
        assert stream.result.codes[0][number].tolist() == clip
    assert len(pieces[0]) == 4  # three codes at a time
    assert next(stream, "end") == "end"


def test_a_stream_tells_the_same_as_generate(speaking_llm):
    options = {"modalities": {"audio"}, "max_seconds": 0.8, "min_seconds": 0.2, "seed": 2}
    whole = speaking_llm.chat(ASK, **options)
    stream = speaking_llm.stream_chat(ASK, **options)
    sound = torch.cat([event.waveform for event in stream])
    assert torch.equal(sound, whole.waveforms[0][0])
    assert stream.result.token_ids[0].tolist() == whole.token_ids[0].tolist()
    assert stream.result.finish_reasons == whole.finish_reasons == ["stop"]
    assert 5 <= len(whole.codes[0][0]) <= 20


def test_sound_arrives_before_the_last_code_is_generated(speaking_llm):
    heard, was_in_time = threading.Event(), []
    answer = spoken(speaking_llm, list(range(20)))
    # Code 10 waits until the first samples have been heard: if they only came at the end, the wait would be in vain.
    stream, script = opened(speaking_llm, answer, hooks={10: lambda: was_in_time.append(heard.wait(20))})
    first = next(stream)
    num_steps_then = script.num_steps
    heard.set()
    assert isinstance(first, StreamedAudio)
    assert len(first.waveform) == 3 * 882
    assert num_steps_then <= 11
    list(stream)
    assert was_in_time == [True]
    assert script.num_steps == len(answer)


def test_text_answers_stream_without_any_decoder(make_llm, text_tokenizer, audio_tokenizer):
    audio_llm = AudioLLM.create(make_llm(), text_tokenizer, audio_tokenizer)
    stream, _ = opened(audio_llm, spoken(audio_llm, "just words"), modalities={"text"})
    assert "".join(event.text for event in stream) == "just words"
    assert stream.result.waveforms is None
    with pytest.raises(ValueError, match="no waveform decoder"):
        opened(audio_llm, [0], modalities={"text", "audio"})


class BrokenModelError(Exception):
    """Raised by the script."""


def fail():
    raise BrokenModelError("out of memory")


def read_into(events, stream):
    for event in stream:
        events.append(event)  # one by one: what came before an error counts


@pytest.mark.parametrize("place", [0, 3, 12])  # at once, in the text, inside a segment
def test_an_error_of_the_model_reaches_the_reader(speaking_llm, place):
    answer = spoken(speaking_llm, "Hello there", list(range(20)))
    start = answer.index(speaking_llm.vocabulary.start_id)
    stream, _ = opened(speaking_llm, answer, hooks={start + 8 if place == 12 else place: fail})
    heard = []
    with pytest.raises(BrokenModelError, match="out of memory"):
        read_into(heard, stream)
    num_samples = sum(len(event.waveform) for event in heard if isinstance(event, StreamedAudio))
    # Of seven codes, two blocks of three: what is left of a broken segment is not decoded as if it were its end.
    assert num_samples == (6 * 882 if place == 12 else 0)
    assert stream.result is None
    assert worker_threads() == []
    assert list(stream) == []


def test_an_error_of_the_decoder_stops_the_model(speaking_llm, speaking_tokenizer):
    def broken(codes, **options):
        next(codes)
        raise BrokenModelError("decoder")
        yield

    speaking_tokenizer.decode_stream = broken
    hold = threading.Event()
    stream, script = opened(speaking_llm, spoken(speaking_llm, [1] * 300), hooks={20: lambda: hold.wait(20)})
    threading.Timer(0.3, hold.set).start()
    with pytest.raises(BrokenModelError, match="decoder"):
        list(stream)
    assert script.num_steps < 30


@pytest.mark.parametrize("leave", ["close", "with", "break", "let go"])
def test_who_stops_reading_stops_the_model(speaking_llm, leave):
    hold = threading.Event()
    answer = spoken(speaking_llm, [1] * 400)
    # The model pauses at step 20, and goes on only once the reader is leaving.
    stream, script = opened(speaking_llm, answer, hooks={20: lambda: hold.wait(20)})
    threading.Timer(0.3, hold.set).start()
    if leave == "close":
        next(stream)
        stream.close()
    elif leave == "with":
        with stream:
            next(stream)
    elif leave == "break":

        def read(events):
            for _ in events:
                return

        events, stream = [stream], None
        read(events.pop())
    else:
        next(stream)
        del stream
    assert worker_threads() == []
    assert script.num_steps <= 22
    if leave in ("close", "with"):
        assert stream.result is None
        assert list(stream) == []
        stream.close()


def test_a_stream_that_nobody_reads_never_starts(speaking_llm):
    stream, script = opened(speaking_llm, spoken(speaking_llm, [1]))
    stream.close()
    assert script.num_steps == 0


def test_what_cannot_be_streamed_is_refused_at_once(speaking_llm):
    with pytest.raises(ValueError, match="one answer, not 2"):
        speaking_llm.stream_chat([ASK, ASK])
    with pytest.raises(ValueError, match="one answer, not 3"):
        speaking_llm.stream_chat(ASK, do_sample=True, num_return_sequences=3)
    with pytest.raises(ValueError, match="min_seconds"):
        speaking_llm.stream_chat(ASK, modalities={"audio"}, min_seconds=2, max_seconds=1)


def test_the_voice_goes_to_the_stream(speaking_llm, speaking_tokenizer):
    settings_ = DecodingSettings(speaker=torch.full((4,), 0.25), steps=4, seed=7, prompt="ready")
    stream, _ = opened(speaking_llm, spoken(speaking_llm, [0, 0]), decoding=settings_)
    sound = torch.cat([event.waveform for event in stream])
    assert sound.unique().tolist() == [0.25]
    assert speaking_tokenizer.options == [{"prompt": "ready", "steps": 4, "seed": 7}]
