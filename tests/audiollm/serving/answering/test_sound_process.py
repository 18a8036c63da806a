"""Sound in a process of its own is the sound of threads; what ends there is told, and begins anew."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from audiollm.generation.decoding import DecodingSettings, SpeechDecoder
from audiollm.serving.answering.sound_process import SoundProcess, _pickled, work
from audiollm.serving.answering.sound_threads import SoundThreads
from audiollm.serving.answering.sounding import SoundMaker
from audiollm.serving.engines.base import EngineError
from audiollm.tokenizer import AudioTokenizer, UniAudioTokenizer
from audiollm.tokenizer.sequence import as_one_row
from audiollm.tokenizer.zoo.speechtokenizer.model import SpeechTokenizer, SpeechTokenizerConfig
from audiollm.tokenizer.zoo.sqcodec.configuration import SQCodecConfig
from audiollm.tokenizer.zoo.sqcodec.model import SQCodec
from audiollm.tokenizer.zoo.wavtokenizer.configuration import WavTokenizerConfig
from audiollm.tokenizer.zoo.wavtokenizer.model import WavTokenizer
from tests.tokenizer.zoo.tiny_codecs import MODELS, make_codec

SECONDS = 120.0
"""Longest that anything may take, on a machine that is busy with others."""


class Heard:
    """What is told of a sound."""

    def __init__(self) -> None:
        self._told: Queue[Tensor | Exception | None] = Queue()

    def __call__(self, what: Tensor | Exception | None) -> None:
        self._told.put(what)

    def first(self) -> Tensor:
        """The first samples."""
        what = self._told.get(timeout=SECONDS)
        assert isinstance(what, Tensor)
        return what

    def all(self) -> Tensor:
        """The samples up to the end; raises what is told instead of one."""
        pieces = [torch.zeros(0)]
        while (what := self._told.get(timeout=SECONDS)) is not None:
            if isinstance(what, Exception):
                raise what
            pieces.append(what)
        return torch.cat(pieces)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return UniAudioTokenizer.from_pretrained("mini")


@pytest.fixture(scope="module")
def process(tokenizer: Any) -> Iterator[SoundProcess]:
    made = SoundProcess(2)
    made.start(tokenizer.decoder)
    yield made
    made.close()


def codes_of(length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 8192, (length,), generator=torch.Generator().manual_seed(seed))


def streamed(workshop: SoundProcess | SoundThreads, decoder: SpeechDecoder, codes: Tensor) -> Tensor:
    heard = Heard()
    sound = workshop.open(decoder, heard)
    for piece in codes.split(7):
        sound.feed(piece)
    sound.end()
    samples = heard.all()
    sound.leave()
    return samples


def whole(workshop: SoundProcess | SoundThreads, decoder: SpeechDecoder, codes: Tensor) -> Tensor:
    heard = Heard()
    workshop.whole(decoder, codes, heard)
    return heard.first()


def test_a_process_makes_the_sound_of_threads(process: SoundProcess, tokenizer: Any) -> None:
    threads = SoundThreads(2)
    decoder = SpeechDecoder(tokenizer, DecodingSettings(seed=3))
    wanted = streamed(threads, decoder, codes_of(40))
    assert len(wanted)
    torch.testing.assert_close(streamed(process, decoder, codes_of(40)), wanted, atol=1e-4, rtol=0)
    wanted, made = (whole(workshop, decoder, codes_of(30)) for workshop in (threads, process))
    assert len(wanted)
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=0)
    threads.close()


def make_speech_tokenizer() -> SpeechTokenizer:
    sizes = {"n_filters": 2, "strides": (4, 5), "dimension": 8, "semantic_dimension": 6, "codebook_size": 16, "n_q": 4}
    return SpeechTokenizer(SpeechTokenizerConfig(**sizes, sample_rate=8000)).eval()


def make_wavtokenizer() -> WavTokenizer:
    sizes: dict[str, Any] = {
        "num_filters": 2, "strides": (5, 4), "feature_size": 8, "codebook_size": 16, "size": 64, "n_fft": 80,
        "intermediate_size": 16, "num_layers": 1, "hop_length": 20, "num_conditions": 3, "sample_rate": 8000,
    }  # fmt: skip
    return WavTokenizer(WavTokenizerConfig(**sizes)).eval()


def make_sqcodec() -> SQCodec:
    sizes: dict[str, Any] = {
        "sample_rate": 8000, "num_samples": 2, "downsample_factors": (5,), "downsample_kernel_sizes": (10,),
        "upsample_factors": (5,), "upsample_kernel_sizes": (10,), "latent_hidden_dim": 3, "init_channel": 2,
    }  # fmt: skip
    return SQCodec(SQCodecConfig(**sizes)).eval()


OTHERS: dict[str, Callable[[], Any]] = {
    "speechtokenizer": make_speech_tokenizer,
    "wavtokenizer": make_wavtokenizer,
    "sqcodec": make_sqcodec,
}


@pytest.mark.parametrize("kind", [*MODELS, *OTHERS])
def test_a_tokenizer_of_any_kind_can_be_sent_to_a_process(kind: str, tmp_path: Path) -> None:
    if kind in MODELS:
        make_codec(kind).save_pretrained(tmp_path)
        codec = AudioTokenizer.from_pretrained(tmp_path)
    else:
        codec = OTHERS[kind]()
    row = as_one_row(codec) if codec.num_codebooks > 1 else codec
    codes = codes_of(7)[None] % min(codec.codebook_sizes)
    codes = codes.expand(codec.num_codebooks, 7)
    before = codec.decode(codes)[0]
    sent = pickle.loads(_pickled(row))
    sent = sent if codec.num_codebooks == 1 else sent.inner
    assert sent.decode(codes)[0].equal(before)
    assert codec.decode(codes)[0].equal(before)  # the one that was sent is as it was


def test_a_process_decodes_rows_of_a_codec_with_several_codebooks(tmp_path: Path) -> None:
    make_codec("dac").save_pretrained(tmp_path)
    row = as_one_row(AudioTokenizer.from_pretrained(tmp_path), None, "delay")
    codes = row.layout.to_symbols(codes_of(27).unflatten(0, (3, 9)) % 16)
    made = SoundProcess(1)
    made.start(row)
    try:
        torch.testing.assert_close(whole(made, SpeechDecoder(row), codes), row.decode(codes[None])[0])
    finally:
        made.close()


def test_sounds_do_not_mix(process: SoundProcess, tokenizer: Any) -> None:
    decoders = [SpeechDecoder(tokenizer, DecodingSettings(seed=seed)) for seed in range(4)]
    alone = [streamed(process, decoder, codes_of(30, seed)) for seed, decoder in enumerate(decoders)]
    heard = [Heard() for _ in decoders]
    sounds = [process.open(decoder, one) for decoder, one in zip(decoders, heard, strict=True)]
    for start in range(0, 30, 5):
        for seed, sound in enumerate(sounds):
            sound.feed(codes_of(30, seed)[start : start + 5])
    for sound in sounds:
        sound.end()
    for one, wanted in zip(heard, alone, strict=True):
        torch.testing.assert_close(one.all(), wanted, atol=1e-4, rtol=0)


def test_an_error_comes_back_as_what_it_is(process: SoundProcess, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="9999"):
        streamed(process, SpeechDecoder(tokenizer), torch.tensor([1, 9999]))


def test_whoever_leaves_is_told_no_more_and_is_in_nobodys_way(process: SoundProcess, tokenizer: Any) -> None:
    decoder = SpeechDecoder(tokenizer)
    left = [process.open(decoder, pytest.fail) for _ in range(4)]  # more than are decoded at once
    for sound in left:
        sound.leave()
        sound.feed(codes_of(30))
    assert len(streamed(process, decoder, codes_of(12)))
    assert not process._tells


def test_a_killed_process_is_told_of_and_replaced(process: SoundProcess, tokenizer: Any) -> None:
    decoder, heard = SpeechDecoder(tokenizer), Heard()
    process.open(decoder, heard)
    killed = process._process
    os.kill(killed.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="-9"):
        heard.all()
    until(lambda: process._process is not killed and process._connection is not None)
    assert len(streamed(process, decoder, codes_of(12)))


def test_what_comes_too_late_is_refused(tokenizer: Any) -> None:
    process = SoundProcess(1)
    with pytest.raises(EngineError, match="not been started"):
        streamed(process, SpeechDecoder(tokenizer), codes_of(12))
    process.start(tokenizer.decoder)
    process.close()
    assert process._process.exitcode is not None  # by itself, or, on a machine that is busy with others, it was ended
    until(lambda: process._connection is None)
    with pytest.raises(EngineError, match="the server ends"):
        streamed(process, SpeechDecoder(tokenizer), codes_of(12))


def test_a_part_of_a_network_is_not_taken_for_a_decoder(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(SoundProcess, "start", lambda _, model: started.append(model))
    codec = SimpleNamespace(decoder=torch.nn.Linear(1, 1))  # as SpeechTokenizer has one
    for one in (codec, tokenizer):
        processor: Any = SimpleNamespace(audio_tokenizer=one)
        SoundMaker(processor, max_streams=1, joins_segments=False, own_process=True).start()
    assert started == [codec, tokenizer.decoder]


def test_a_process_without_a_server_ends(tokenizer: Any) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=work, args=(theirs, 1))
    worker.start()
    theirs.close()
    ours.send_bytes(pickle.dumps(tokenizer.decoder))
    assert pickle.loads(ours.recv_bytes()) == "ready"
    ours.close()
    worker.join(SECONDS)
    assert worker.exitcode == 0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
