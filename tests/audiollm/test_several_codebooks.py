"""One LLM on audio tokenizers of one, two and eight codebooks: made, saved, loaded, asked, heard."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from audiollm import speaking
from audiollm.generation.decoding import SpeechDecoder
from audiollm.generation.streaming import StreamedAudio
from audiollm.modeling import AudioLLM
from audiollm.processing import AudioLLMProcessor
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.sequence import SequenceTokenizer, as_one_row
from audiollm.transcription.transcribing import longest_piece
from tests.toy_codec import ToyCodec, register, sound

ROWS = [(1, None, "flat"), (2, None, "flat"), (2, None, "delay"), (8, None, "flat"), (8, 2, "delay"), (8, 1, "flat")]


@pytest.fixture(autouse=True)
def known_kind(monkeypatch):
    register(monkeypatch)


@pytest.fixture
def create(make_llm, make_text_tokenizer, tmp_path):
    def made(num_codebooks=8, codebooks=None, order="flat", **options):
        codec = ToyCodec(num_codebooks, **options)
        codec.save_pretrained(tmp_path / "codec")
        text_tokenizer = make_text_tokenizer()
        return AudioLLM.create(make_llm(), text_tokenizer, tmp_path / "codec", codebooks=codebooks, code_order=order)

    return made


def question():
    return [{"role": "user", "content": [{"type": "audio", "audio": sound(1.2).numpy(), "sampling_rate": 16000}]}]


@pytest.mark.parametrize(("num_codebooks", "used", "order"), ROWS)
def test_an_llm_of_any_tokenizer_is_saved_loaded_and_speaks(create, tmp_path, num_codebooks, used, order):
    model = create(num_codebooks, used, order)
    model.save_pretrained(tmp_path / "llm")
    shutil.rmtree(tmp_path / "codec")
    loaded = AudioLLM.from_pretrained(tmp_path / "llm")
    assert loaded.vocabulary == model.vocabulary
    assert (loaded.vocabulary.layout is None) == (num_codebooks == 1)
    tokenizer = loaded.processor.audio_tokenizer
    assert isinstance(tokenizer, SequenceTokenizer) == (num_codebooks > 1)
    assert tokenizer.fingerprint() == model.processor.audio_tokenizer.fingerprint()
    assert isinstance(AudioTokenizer.from_pretrained(tmp_path / "llm"), ToyCodec)  # its own files, as they are

    inputs = loaded.processor.apply_chat_template(question(), add_generation_prompt=True)
    other = model.processor.apply_chat_template(question(), add_generation_prompt=True)
    assert inputs["input_ids"].equal(other["input_ids"])
    (heard,) = [one for one in loaded.processor.split(inputs["input_ids"][0]) if hasattr(one, "codes")]
    assert heard.codes.equal(tokenizer.encode([sound(1.2)], 16000)[0][0])

    settings = {"modalities": {"audio"}, "min_seconds": 0.3, "max_seconds": 0.6, "seed": 3}
    result = loaded.generate(**inputs, **settings)
    (codes,), (waveform,) = result.codes[0], result.waveforms[0]
    assert 0.3 * 16000 <= len(waveform) <= 0.6 * 16000
    assert waveform.equal(tokenizer.decode(codes[None])[0])
    assert loaded.processor.decode_audio(result.token_ids[0]).equal(waveform)

    with loaded.stream(**inputs, **settings) as stream:
        pieces = [piece.waveform for piece in stream if isinstance(piece, StreamedAudio)]
    assert torch.cat(pieces).allclose(waveform)
    assert stream.result.token_ids[0].equal(result.token_ids[0])
    assert result.finish_reasons[0] in ("length", "stop")

    loaded.save_pretrained(tmp_path / "again")
    again = AudioLLM.from_pretrained(tmp_path / "again")
    assert again.processor.audio_tokenizer.fingerprint() == tokenizer.fingerprint()


def test_an_answer_that_a_limit_cuts_within_a_frame_is_heard_up_to_there(create):
    model = create(2)
    inputs = model.processor.apply_chat_template(question(), add_generation_prompt=True)
    result = model.generate(**inputs, modalities={"audio"}, min_seconds=None, max_new_tokens=6, seed=0, top_k=0)
    assert result.finish_reasons == ["length"] or len(result.token_ids[0]) < 6
    assert len(result.waveforms[0][0]) == len(result.codes[0][0]) // 2 * 1600


def test_one_codebook_is_written_as_it_always_was(create, tmp_path):
    create(1).save_pretrained(tmp_path / "llm")
    assert "layout" not in json.loads((tmp_path / "llm" / "config.json").read_text())["audio_vocabulary"]
    assert "code_layout" not in json.loads((tmp_path / "llm" / "processor_config.json").read_text())


def test_who_has_no_decoder_listens_only_and_says_so(create):
    model = create(8, decodes=False)
    inputs = model.processor.apply_chat_template(question(), add_generation_prompt=True)
    assert model.generate(**inputs, max_new_tokens=2).texts
    for speak in (
        lambda: model.generate(**inputs, modalities={"audio"}, return_waveforms=True),
        lambda: model.stream(**inputs, modalities={"audio"}),
    ):
        with pytest.raises(ValueError, match="can listen only, for ToyCodec has no waveform decoder"):
            speak()


def test_another_tokenizer_of_the_same_sizes_is_refused(create, tmp_path):
    create(8).save_pretrained(tmp_path / "llm")
    ToyCodec(8, seed=1).save_pretrained(tmp_path / "llm" / "audio_tokenizer")
    model = AudioLLM.from_pretrained(tmp_path / "llm")
    with pytest.raises(ValueError, match=r"another audio tokenizer \(fingerprint .*put that one back"):
        model.ask(sound(1), "What?", sample_rate=16000)


def test_another_layout_of_the_same_tokenizer_is_refused(create, tmp_path):
    model = create(8)
    other = as_one_row(ToyCodec(8), None, "delay")
    with pytest.raises(ValueError, match=r"gives rows of 8 x 8 codes, delay, but the audio vocabulary is one of 8 x 8"):
        model.processor.audio_tokenizer = other
    with pytest.raises(ValueError, match="has 1 x 64 codes, but"):
        model.processor.audio_tokenizer = ToyCodec(1, 64)
    model.save_pretrained(tmp_path / "llm")
    config = tmp_path / "llm" / "config.json"
    stated = json.loads(config.read_text())
    del stated["audio_vocabulary"]["layout"]
    config.write_text(json.dumps(stated))
    with pytest.raises(ValueError, match="was extended for codes in the layout None, and its processor has"):
        AudioLLM.from_pretrained(tmp_path / "llm")


def test_an_llm_of_one_codebook_refuses_the_codes_of_eight(create):
    one, eight = create(1, codebook_size=64), ToyCodec(8)
    with pytest.raises(ValueError, match="has 8 x 8 codes, but the text tokenizer holds an audio vocabulary of 1 x 64"):
        one.processor.audio_tokenizer = eight
    with pytest.raises(ValueError, match=r"gives rows of 8 x 8 codes, flat, but .* 1 x 64 codes"):
        one.processor.audio_tokenizer = as_one_row(eight)
    codes = eight.encode([sound(1)], 16000)[0]
    with pytest.raises(ValueError, match="single codebook"):
        one.vocabulary.codes_to_token_ids(codes.tolist())
    row = as_one_row(eight)
    part = {
        "type": "audio",
        "codes": row.encode([sound(1)], 16000)[0][0].tolist(),
        "audio_tokenizer": row.fingerprint(),
    }
    with pytest.raises(ValueError, match="made by another audio tokenizer"):
        one.processor.apply_chat_template([{"role": "user", "content": [part]}])


def test_a_row_that_is_not_whole_is_no_recording(create):
    model = create(8)
    for codes, message in (([0, 8, 16], "breaks off"), ([8] * 8, "symbol 8 at position 0 cannot be")):
        chat = [{"role": "user", "content": [{"type": "audio", "codes": codes}]}]
        with pytest.raises(ValueError, match=message):
            model.processor.apply_chat_template(chat)


def test_codes_of_all_codebooks_become_token_ids(create):
    model = create(2, None, "delay")
    codes = torch.tensor([[1, 2, 3], [4, 5, 6]])
    ids = model.vocabulary.codes_to_token_ids(codes)
    assert model.vocabulary.codes_to_token_ids(codes.tolist()) == ids.tolist()
    assert model.vocabulary.token_ids_to_codebooks(ids).equal(codes)
    assert model.vocabulary.wrap(codes).tolist() == [model.vocabulary.start_id, *ids.tolist(), model.vocabulary.end_id]


def test_a_processor_says_how_several_codebooks_become_a_row(create, tmp_path):
    model = create(2)
    with pytest.raises(ValueError, match=r"has 2 x 8 codes, but .* 1 x 16 codes"):
        AudioLLMProcessor(model.processor.tokenizer, audio_tokenizer=ToyCodec(2))
    assert (
        AudioLLMProcessor(
            model.processor.tokenizer, audio_tokenizer=ToyCodec(2), code_layout=model.vocabulary.layout
        ).vocabulary
        == model.vocabulary
    )


def test_a_prompt_that_is_written_out_takes_recordings_and_rows_too(create):
    processor = create(2, None, "delay").processor
    chat = question()
    text = processor.apply_chat_template([{"role": "user", "content": [{"type": "audio"}]}], tokenize=False)
    by_hand = processor(text=text, audio=[sound(1.2)], sampling_rate=16000)
    assert by_hand["input_ids"].equal(processor.apply_chat_template(chat)["input_ids"])
    spelt = processor.apply_chat_template(chat, tokenize=False)
    assert processor(text=spelt)["input_ids"].equal(by_hand["input_ids"])


@pytest.mark.parametrize(("order", "seconds"), [("flat", 10.0), ("delay", 9.3)])
def test_pieces_of_a_transcription_are_as_long_as_the_context_allows(create, order, seconds):
    processor = create(8, None, order).processor
    num_other = longest_context(processor) - 800
    assert longest_piece(processor, num_other + 800, "What?", max_new_tokens=1) == pytest.approx(seconds)


def longest_context(processor):
    """The context in which 800 tokens are left for audio, beside the question and one token of an answer."""
    clip = processor.vocabulary.shortest_clip
    part = {"type": "audio", "codes": clip}
    chat = [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]
    return processor.apply_chat_template(chat, add_generation_prompt=True)["input_ids"].shape[1] - len(clip) + 1 + 800


def test_a_decoder_that_cannot_stream_gives_its_sound_at_the_end(create, monkeypatch):
    monkeypatch.delattr(ToyCodec, "decode_stream")
    model = create(2)
    inputs = model.processor.apply_chat_template(question(), add_generation_prompt=True)
    with model.stream(**inputs, modalities={"audio"}, max_seconds=0.5, seed=1) as stream:
        pieces = [piece for piece in stream if isinstance(piece, StreamedAudio)]
    assert len(pieces) == 1
    assert pieces[0].waveform.equal(model.processor.decode_audio(stream.result.token_ids[0]))


def test_delayed_rows_are_not_joined_to_one_sound(create):
    tokenizer = create(2, None, "delay").processor.audio_tokenizer
    SpeechDecoder(tokenizer)
    with pytest.raises(ValueError, match="delayed rows of codes cannot be joined"):
        SpeechDecoder(tokenizer, joins_segments=True)


def test_a_decoder_of_codes_alone_takes_a_seed_and_nothing_else(create):
    model = create(2)
    first, again = (speaking.speak(model, "a dog", seed=3, max_seconds=0.5) for _ in range(2))
    assert first.waveform.equal(again.waveform)
    for name, value in {"steps": 3, "guidance": 1.0, "speaker": [1.0], "quality": "fast"}.items():
        with pytest.raises(ValueError, match=f"{name}: the decoder of ToyCodec makes sound of codes alone"):
            speaking.speak(model, "a dog", **{name: value})
