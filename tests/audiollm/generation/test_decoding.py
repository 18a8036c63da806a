"""Answers become sound: each row in its own voice, limits of length hold to the code, voices are checked beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from audiollm.generation import ContextError, DecodingSettings, SpeechDecoder, voice_prompt

CHATS = [[{"role": "user", "content": text}] for text in ("Speak.", "Say something longer, please.", "Hm?")]
AUDIO = {"modalities": {"audio"}, "seed": 0}


def test_audio_answers_are_decoded_row_by_row_unless_told_otherwise(speaking_llm, speaking_tokenizer):
    result = speaking_llm.chat(CHATS, max_seconds=0.6, **AUDIO)
    assert result.sample_rate == 22050
    assert [len(row) for row in result.waveforms] == [1, 1, 1]
    for waveforms, codes in zip(result.waveforms, result.codes, strict=True):
        assert torch.equal(waveforms[0], speaking_tokenizer._render(codes[0], None))
    assert len({tuple(row[0].tolist()) for row in result.codes}) == 3
    silent = speaking_llm.chat(CHATS, max_seconds=0.6, return_waveforms=False, **AUDIO)
    assert silent.waveforms is None
    assert silent.sample_rate is None
    assert torch.equal(silent.codes[2][0], result.codes[2][0])
    assert speaking_llm.chat(CHATS[0], max_new_tokens=3).waveforms is None


def test_without_a_decoder_audio_answers_are_codes(make_llm, text_tokenizer, audio_tokenizer):
    from audiollm.modeling import AudioLLM

    audio_llm = AudioLLM.create(make_llm(), text_tokenizer, audio_tokenizer)
    assert audio_llm.chat(CHATS[0], max_seconds=0.2, **AUDIO).waveforms is None
    for options in ({"return_waveforms": True}, {"decoding": DecodingSettings(seed=1)}):
        with pytest.raises(ValueError, match="no waveform decoder"):
            audio_llm.chat(CHATS[0], max_seconds=0.2, **options, **AUDIO)


def test_every_row_has_its_own_speaker_also_with_several_answers(speaking_llm, speaking_tokenizer):
    speakers = torch.tensor([[1.0, 3.0], [10.0, 10.0], [20.0, 22.0]])
    decoding = DecodingSettings(speaker=speakers)
    result = speaking_llm.chat(CHATS, max_seconds=0.2, num_return_sequences=2, decoding=decoding, **AUDIO)
    assert len(result.waveforms) == 6
    for number, (waveforms, codes) in enumerate(zip(result.waveforms, result.codes, strict=True)):
        assert torch.equal(waveforms[0], speaking_tokenizer._render(codes[0], speakers[number // 2]))
    everyone = speaking_llm.chat(CHATS, max_seconds=0.2, decoding=DecodingSettings(speaker=[5.0, 5.0]), **AUDIO)
    assert all(int(row[0].min()) == 5 for row in everyone.waveforms)


def test_rows_with_no_or_several_segments_keep_their_places(speaking_tokenizer):
    decoder = SpeechDecoder(speaking_tokenizer, DecodingSettings(speaker=torch.tensor([[0.0], [1.0], [2.0]])), 3)
    rows = [[], [torch.tensor([1, 2]), torch.tensor([3])], [torch.tensor([0])]]
    waveforms = decoder.decode(rows)
    assert [[len(waveform) // 882 for waveform in row] for row in waveforms] == [[], [2, 1], [1]]
    assert [float(waveforms[1][1][0]), float(waveforms[2][0][0])] == [1 + 3 / 64, 2.0]
    assert decoder.decode([[], []]) == [[], []]


@pytest.mark.parametrize("seconds", [(0.4, 0.4), (1.0, 1.02), (0.04, 0.04), (0.4, None), (None, 0.4)])
def test_limits_of_length_hold_to_the_code(speaking_llm, seconds):
    shortest, longest = (None if limit is None else limit * 25 for limit in seconds)
    options = {"min_seconds": seconds[0], "max_seconds": seconds[1]}
    for seed in range(4):
        result = speaking_llm.chat(CHATS, modalities={"audio"}, seed=seed, **options)
        for codes, waveforms in zip(result.codes, result.waveforms, strict=True):
            assert len(codes[0]) >= (shortest or 1) - 1e-6
            assert longest is None or len(codes[0]) <= longest + 1e-6
            assert len(waveforms[0]) == 882 * len(codes[0])
        cut = [longest is not None and len(codes[0]) + 1 > longest for codes in result.codes]
        assert result.finish_reasons == ["length" if is_cut else "stop" for is_cut in cut]
        assert all(row[0].well_formed for row in result.segments)


def test_answers_get_the_room_that_their_limits_need(speaking_llm):
    # 20 s are 500 codes, more than the 256 tokens of a text answer.
    long = speaking_llm.chat(CHATS[0], min_seconds=20, max_seconds=20, return_waveforms=False, **AUDIO)
    assert len(long.codes[0][0]) == 500
    with pytest.raises(ContextError, match=r"the answer may take 1253, but the context holds 1024"):
        speaking_llm.chat(CHATS[0], max_seconds=50, **AUDIO)
    with pytest.raises(ValueError, match=r"min_seconds=2 takes 53 tokens, but max_new_tokens=52"):
        speaking_llm.chat(CHATS[0], min_seconds=2, max_new_tokens=52, **AUDIO)
    filler = [{"role": "user", "content": "word " * 150}]  # leaves less room than 30 s, more than what must fit
    assert speaking_llm.chat(filler, return_waveforms=False, **AUDIO).codes[0]


@pytest.fixture
def recording(tmp_path):
    """Half a second at 8 kHz."""
    path = tmp_path / "voice.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(4000)), 8000)
    return path


def test_a_recording_becomes_a_prompt_of_codes_and_sound(speaking_llm, speaking_tokenizer, recording):
    speaking_llm.chat(CHATS[0], max_seconds=0.2, decoding=DecodingSettings(prompt_audio=recording, seed=3), **AUDIO)
    (options,) = speaking_tokenizer.options
    assert options["seed"] == 3
    assert options["prompt"]["codes"].shape == (1, 13)
    assert (options["prompt"]["num_samples"], options["prompt"]["sample_rate"]) == (4000, 8000)
    samples, _ = soundfile.read(recording, dtype="float32")
    assert torch.equal(voice_prompt(speaking_tokenizer, samples, 8000)["codes"], options["prompt"]["codes"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speaker": torch.zeros(2, 4)}, r"shape \[2, 4\].*\[3, size\]"),
        ({"speaker": torch.zeros(1, 2, 3)}, r"shape \[1, 2, 3\]"),
        ({"speaker": [0.0, float("nan")]}, "NaN"),
        ({"steps": 0}, "steps=0"),
        ({"guidance": -1.0}, r"guidance=-1\.0"),
        ({"prompt_audio": [1, 2, 3]}, "one recording"),
        ({"prompt_audio": np.zeros(100, np.float32)}, "sample_rate="),
        ({"prompt_audio": "a.wav", "prompt": "ready"}, "give one of them"),
        ({"sample_rate": 8000}, "prompt_audio, which is missing"),
        ({"prompt_audio": "missing.wav"}, "missing.wav"),
    ],
)
def test_a_voice_that_cannot_be_is_refused_before_anything_is_generated(speaking_llm, settings, message):
    def refuse(*args, **kwargs):
        raise AssertionError("generated")

    speaking_llm.model.generate = refuse
    with pytest.raises(ValueError, match=message):
        speaking_llm.chat(CHATS, decoding=DecodingSettings(**settings), **AUDIO)


def test_a_speaker_vector_of_another_size_is_refused(speaking_llm, speaking_tokenizer):
    speaking_tokenizer.speaker_size = 192
    with pytest.raises(ValueError, match=r"shape \[256\]: use \[192\]"):
        speaking_llm.chat(CHATS, decoding=DecodingSettings(speaker=torch.zeros(256)), **AUDIO)
    assert (
        len(SpeechDecoder(speaking_tokenizer, DecodingSettings(speaker=torch.zeros(192))).decode([[torch.ones(1)]]))
        == 1
    )


def test_a_tokenizer_without_prompts_says_so(speaking_llm, speaking_tokenizer, recording):
    speaking_tokenizer.decoder = None
    with pytest.raises(ValueError, match="give speaker= instead"):
        speaking_llm.chat(CHATS[0], decoding=DecodingSettings(prompt_audio=recording), **AUDIO)


def test_voices_for_answers_that_stay_silent_are_refused(speaking_llm):
    for options in ({"modalities": {"text"}}, {"modalities": {"audio"}, "return_waveforms": False}):
        with pytest.raises(ValueError, match="nothing will be decoded"):
            speaking_llm.chat(CHATS[0], decoding=DecodingSettings(seed=1), **options)


# --------------------------------------------------------------------- quality


def recorded_options(tokenizer, monkeypatch) -> dict:
    """What the decoder is given beside codes and voices."""
    seen: dict = {}
    render = tokenizer.decode

    def decode(codes, speaker=None, prompt=None, **options):
        seen.update(options)
        return render(codes, speaker, prompt)

    monkeypatch.setattr(tokenizer, "decode", decode)
    return seen


def test_answers_are_decoded_fast_unless_asked_for_exactly(speaking_tokenizer, monkeypatch):
    seen = recorded_options(speaking_tokenizer, monkeypatch)
    monkeypatch.setattr(type(speaking_tokenizer.decoder), "qualities", ("exact", "fast"), raising=False)
    for wanted, given in ((None, "fast"), ("fast", "fast"), ("exact", "exact")):
        decoder = SpeechDecoder(speaking_tokenizer, DecodingSettings(quality=wanted))
        decoder.decode([[torch.tensor([1, 2])]])
        assert seen["quality"] == decoder.quality == given


def test_a_decoder_of_one_quality_is_not_asked_for_another(speaking_tokenizer, monkeypatch):
    seen = recorded_options(speaking_tokenizer, monkeypatch)
    for wanted in (None, "exact"):
        SpeechDecoder(speaking_tokenizer, DecodingSettings(quality=wanted)).decode([[torch.tensor([1])]])
        assert "quality" not in seen
    with pytest.raises(ValueError, match="quality='fast': the decoder of this audio tokenizer has one quality"):
        SpeechDecoder(speaking_tokenizer, DecodingSettings(quality="fast"))
    with pytest.raises(ValueError, match="quality='best' is unknown"):
        SpeechDecoder(speaking_tokenizer, DecodingSettings(quality="best"))
