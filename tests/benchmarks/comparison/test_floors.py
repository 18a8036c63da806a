"""Floors are tokenizers like others: bytes that decode to the sound they were made of, for any clip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiollm.benchmarks.comparison.floors import Floor, MuLaw, MuLawSettings, OpusBytes, OpusSettings
from audiollm.data.audio.waveforms import resample


def chirp(seconds: float, sample_rate: int = 16000) -> Tensor:
    times = torch.arange(round(seconds * sample_rate)) / sample_rate
    return 0.4 * torch.sin(2 * torch.pi * (200 + 150 * times) * times)


@pytest.fixture(params=["mulaw", "opus"])
def floor(request: pytest.FixtureRequest) -> Floor:
    if request.param == "mulaw":
        return MuLaw()
    pytest.importorskip("av")
    return OpusBytes(OpusSettings(kbps=24))


def test_what_is_decoded_is_what_was_encoded(floor: Floor) -> None:
    waveform = chirp(1.0)
    codes = floor.encode([waveform], 16000)
    [made] = floor.decode(codes)
    heard = resample(made, floor.output_sample_rate, 16000)
    assert len(heard) >= len(waveform)
    assert torch.corrcoef(torch.stack([waveform, heard[: len(waveform)]]))[0, 1] > 0.9


def test_codes_are_bytes_and_as_many_as_promised(floor: Floor) -> None:
    lengths = [0, 1, 319, 320, 5000]
    codes = floor.encode([chirp(1.0)[:length] for length in lengths], 16000)
    assert codes.lengths.tolist() == [floor.num_frames(length, 16000) for length in lengths]
    assert codes.codes.shape[1] == floor.num_codebooks
    assert 0 <= int(codes.codes.min()) <= int(codes.codes.max()) < floor.codebook_size


def test_a_clip_in_a_batch_is_what_it_would_be_alone(floor: Floor) -> None:
    clips = [chirp(0.3), chirp(0.11)]
    together = floor.encode(clips, 16000)
    for index, clip in enumerate(clips):
        assert torch.equal(together[index], floor.encode([clip], 16000)[0])


def test_codes_that_are_no_bytes_are_refused(floor: Floor) -> None:
    with pytest.raises(ValueError, match="bytes"):
        floor.decode(torch.full((floor.num_codebooks, 3), 256))
    with pytest.raises(ValueError, match="bytes"):
        floor.decode(torch.zeros(floor.num_codebooks + 1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="speaker"):
        floor.decode(torch.zeros(floor.num_codebooks, 3, dtype=torch.int64), torch.zeros(3))


def test_packets_that_are_none_are_named() -> None:
    pytest.importorskip("av")
    floor = OpusBytes()
    with pytest.raises(ValueError, match="no Opus packet"):
        floor.decode(torch.full((floor.num_codebooks, 2), 255))


def test_mu_law_keeps_quiet_and_loud_samples_alike() -> None:
    floor = MuLaw(MuLawSettings(sample_rate=16000))
    samples = torch.tensor([0.001, -0.01, 0.1, -0.9, 1.0])
    [made] = floor.decode(floor.encode([samples], 16000))
    assert ((made - samples).abs() / samples.abs()).max() < 0.2


def test_bits_are_those_that_were_asked_for() -> None:
    pytest.importorskip("av")
    assert MuLaw().frame_rate * 8 == 64000
    floor = OpusBytes(OpusSettings(kbps=8))
    assert floor.frame_rate * floor.num_codebooks * 8 == 8000
    with pytest.raises(ValueError, match=r"steps of 0\.4"):
        OpusSettings(kbps=6.1)


def test_other_settings_have_another_fingerprint() -> None:
    assert MuLaw().fingerprint() == MuLaw().fingerprint() != MuLaw(MuLawSettings(sample_rate=16000)).fingerprint()
