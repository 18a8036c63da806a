"""A job of tokenizing as a program that tests kill."""

import json
import os
import signal
import sys
import time
from unittest.mock import patch

from audiollm.data.tokenizing import encoding
from audiollm.data.tokenizing.jobs.job import tokenize_into_folder
from tests.data.tokenizing.corpora import RATE, sound
from tests.data.tokenizing.test_corpus import FakeTokenizer

POISON_SAMPLES = 1234  # length of a clip that kills whoever encodes it
SHARD_HOURS = 0.5 / 3600  # two clips of 0.2 s


class Slow(FakeTokenizer):
    """Leaves time to be killed."""

    def encode(self, waveforms, sample_rate):
        time.sleep(float(os.environ.get("SECONDS_PER_CLIP", "0.02")) * len(waveforms))
        if any(len(waveform) == POISON_SAMPLES for waveform in waveforms):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(waveforms, sample_rate)


class DeadAtOnce(FakeTokenizer):
    def __init__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def poison():
    """The bytes of a clip that kills whoever encodes it."""
    return sound(POISON_SAMPLES / RATE)


def open_slow(device):
    return Slow()


def open_dead(device):
    return DeadAtOnce() if device is None else FakeTokenizer()  # the first process asks for the fingerprint, on the CPU


def tokenize(source, output, **options):
    with patch.object(encoding, "MAX_GATHERED_RECORDS", 1):
        return tokenize_into_folder(source, open_slow, output, shard_hours=SHARD_HOURS, progress=False, **options)


if __name__ == "__main__":
    tokenize(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
