"""Any bytes at all give samples or an AudioError: nothing else, in bounded time and memory.

The figures of docs/reliability.md: ``AUDIOLLM_FUZZED_FILES=20000 pytest -s tests/data/audio/test_fuzzing.py``.
"""

import logging
import os
import random
import sys
import tracemalloc
from collections import Counter, defaultdict

import numpy as np
import pytest

from audiollm.data.audio import AudioDamage, AudioError, load_audio, probe_audio

from .recordings import FORMATS, LENGTH_NOT_TOLD, damaged, encoded, noise, recording

NUM_FILES = int(os.environ.get("AUDIOLLM_FUZZED_FILES", "1200"))
# Every byte of these counts: pages and frames have checksums.
CHECKED_BYTE_BY_BYTE = ("FLAC", "Vorbis", "Opus")


def outcome(content: bytes, whole: np.ndarray) -> str:
    """How a damaged file was taken; errors other than AudioError pass through."""
    try:
        samples = load_audio(content)[0].numpy()
    except AudioError:
        _take(content)
        return "refused"
    assert probe_audio(content).num_samples == len(samples)
    assert np.isfinite(samples).all()
    if np.array_equal(samples, whole):
        return "equal"
    is_whole = len(samples) > len(whole) and np.array_equal(samples[: len(whole)], whole)
    return "equal, and more behind" if is_whole else "other sound"


def _take(content: bytes) -> None:
    damages: list[AudioDamage] = []
    try:
        waveform, sample_rate = load_audio(content, on_damaged=damages.append)
    except AudioError:
        return
    (damage,) = damages
    assert damage.reason
    assert damage.seconds_read == len(waveform) / sample_rate


def test_damaged_files_of_every_format_give_samples_or_an_audio_error(monkeypatch):
    monkeypatch.setenv("PATH", "")  # no ffmpeg
    logging.getLogger("audiollm").setLevel(logging.ERROR)
    contents = {kind: recording(kind) for kind in FORMATS}
    wholes = {kind: load_audio(content)[0].numpy() for kind, content in contents.items()}
    choices = random.Random(20240607)
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    tracemalloc.start()
    for _ in range(NUM_FILES):
        kind = choices.choice(list(FORMATS))
        content = damaged(contents[kind], list(contents.values()), choices)
        outcomes[kind][outcome(content, wholes[kind])] += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    logging.getLogger("audiollm").setLevel(logging.NOTSET)
    for kind, counts in outcomes.items():
        sys.stdout.write(f"{kind:14} {sum(counts.values())} {dict(counts)}\n")
    assert peak < 100e6
    for kind in CHECKED_BYTE_BY_BYTE:
        assert not outcomes[kind]["other sound"], kind


def test_no_recording_behind_another_is_lost():
    """Every pair of formats (or some of them): both come, or an error does."""
    pairs = [(first, second) for first in FORMATS for second in FORMATS]
    choices = random.Random(3)
    firsts = {kind: recording(kind) for kind in FORMATS}
    seconds = {kind: recording(kind, 5000, seed=1) for kind in FORMATS}
    sounds = {id(content): load_audio(content)[0].numpy() for content in [*firsts.values(), *seconds.values()]}
    outcomes: Counter[str] = Counter()
    lost = set()
    for first, second in choices.sample(pairs, min(len(pairs), max(150, NUM_FILES // 10))):
        expected = np.concatenate([sounds[id(firsts[first])], sounds[id(seconds[second])]])
        try:
            samples = load_audio(firsts[first] + seconds[second])[0].numpy()
        except AudioError:
            outcomes["refused"] += 1
            continue
        is_both = np.array_equal(samples, expected)
        outcomes["both" if is_both else "lost, or heard as noise"] += 1
        lost |= set() if is_both else {first}
    sys.stdout.write(f"pairs of recordings: {dict(outcomes)}\n")
    assert lost <= {*LENGTH_NOT_TOLD, "MAT4", "SDS"}


@pytest.mark.parametrize("kind", CHECKED_BYTE_BY_BYTE)
def test_no_flipped_bit_of_ogg_and_flac_goes_unnoticed(kind):
    content = encoded(noise(24_000), format=FORMATS[kind][0], subtype=FORMATS[kind][1])
    whole = load_audio(content)[0].numpy()
    choices = random.Random(1)
    outcomes: Counter[str] = Counter()
    for _ in range(max(300, NUM_FILES // 10)):
        flipped = bytearray(content)
        flipped[choices.randrange(len(content))] ^= 1 << choices.randrange(8)
        outcomes[outcome(bytes(flipped), whole)] += 1
    sys.stdout.write(f"{kind} with a bit flipped: {dict(outcomes)}\n")
    assert outcomes.keys() <= {"refused", "equal"}


@pytest.mark.parametrize("kind", sorted(FORMATS.keys() - set(LENGTH_NOT_TOLD) - {"MP3"}))
def test_no_cut_goes_unnoticed_where_the_length_is_told(kind):
    content = recording(kind)
    for share in (0.95, 0.7, 0.4):
        with pytest.raises(AudioError):
            load_audio(content[: int(len(content) * share)])
