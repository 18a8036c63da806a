"""The whole way with a real waveform decoder, tiny and untrained: folder to model to sound, whole and streamed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from audiollm.modeling import AudioLLM
from audiollm.speaking import speak, speak_many, speak_stream
from audiollm.tokenizer.decoder.configuration import (
    EstimatorConfig,
    FlowConfig,
    TokenEncoderConfig,
    VocoderConfig,
    WaveformDecoderConfig,
)
from audiollm.tokenizer.decoder.model import WaveformDecoder


@pytest.fixture(scope="module")
def tiny_decoder():
    config = WaveformDecoderConfig(
        flow=FlowConfig(
            codebook_size=64,
            embedding_size=8,
            encoder=TokenEncoderConfig(size=8, num_heads=2, feed_forward_size=8, num_blocks=1),
            estimator=EstimatorConfig(channels=(8,), num_heads=1, head_dim=8, blocks_per_stage=1, num_mid_stages=1),
        ),
        vocoder=VocoderConfig(
            base_channels=8,
            f0_channels=4,
            resblock_kernel_sizes=(3,),
            resblock_dilations=((1,),),
            source_resblock_kernel_sizes=(3, 3),
            source_resblock_dilations=((1,), (1,)),
        ),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WaveformDecoder(config).eval().prepare()


@pytest.fixture
def speaking_folder(make_llm, text_tokenizer, codec, tiny_decoder, tmp_path):
    """An Audio-LLM folder whose audio tokenizer has a decoder."""
    audio_tokenizer = copy.deepcopy(codec)
    audio_tokenizer.attach_decoder(tiny_decoder)
    AudioLLM.create(make_llm(), text_tokenizer, audio_tokenizer).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_loaded_folder_speaks_alone_in_a_batch_and_as_a_stream(speaking_folder, tiny_decoder):
    model = AudioLLM.from_pretrained(speaking_folder)
    limits = {"min_seconds": 1.2, "max_seconds": 1.2, "seed": 1, "steps": 2}
    alone = speak(model, "Hello", "a man", **limits)
    assert len(alone.codes) == 30
    assert alone.sample_rate == tiny_decoder.sample_rate == 22050
    assert len(alone.waveform) == tiny_decoder.num_samples(30)
    assert alone.duration_seconds == pytest.approx(1.2, abs=0.02)
    assert torch.equal(alone.waveform, tiny_decoder.decode(alone.codes, steps=2, seed=1)[0])
    assert torch.equal(speak(model, "Hello", "a man", **limits).waveform, alone.waveform)

    with speak_stream(model, "Hello", "a man", **limits) as stream:
        pieces = [event.waveform for event in stream]
    assert len(pieces) > 1
    sound = torch.cat(pieces)
    assert torch.equal(stream.result.codes[0][0], alone.codes)
    offline = torch.cat(list(tiny_decoder.decode_stream([alone.codes], steps=2, seed=1)))
    torch.testing.assert_close(sound, offline)
    assert len(sound) == len(alone.waveform)

    greedy = {"do_sample": False, "max_seconds": 0.4}
    for text, result in zip(("One", "Two, longer"), speak_many(model, ["One", "Two, longer"], **greedy), strict=True):
        torch.testing.assert_close(speak(model, text, **greedy).waveform, result.waveform, atol=1e-5, rtol=1e-4)


def test_the_voice_of_a_speaker_and_of_a_recording_is_heard(speaking_folder, tiny_decoder):
    model = AudioLLM.from_pretrained(speaking_folder)
    limits = {"min_seconds": 0.6, "max_seconds": 0.6, "seed": 1, "steps": 2}
    neutral = speak(model, "Hello", **limits)
    speaker = torch.randn(tiny_decoder.speaker_size, generator=torch.Generator().manual_seed(0))
    samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    recording = {"prompt_audio": samples, "sample_rate": 16000}
    codes = model.processor.audio_tokenizer.encode([torch.from_numpy(samples)], 16000)[0]
    prompt = tiny_decoder.prompt(torch.from_numpy(samples), 16000, codes)
    assert codes.shape == (1, 25)
    for voice, given in (
        ({"speaker": speaker}, {"speaker": speaker}),
        (recording, {"prompt": prompt}),
        ({"speaker": speaker, **recording}, {"speaker": speaker, "prompt": prompt}),
    ):
        other = speak(model, "Hello", **voice, **limits)
        assert torch.equal(other.codes, neutral.codes)
        assert not torch.equal(other.waveform, neutral.waveform)
        assert torch.equal(other.waveform, tiny_decoder.decode(other.codes, **given, steps=2, seed=1)[0])
        with speak_stream(model, "Hello", **voice, **limits) as stream:
            sound = torch.cat([event.waveform for event in stream])
        assert len(sound) == len(neutral.waveform)
    with pytest.raises(ValueError, match=rf"use \[{tiny_decoder.speaker_size}\]"):
        speak(model, "Hello", speaker=torch.zeros(7), **limits)
