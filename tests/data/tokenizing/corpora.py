"""Corpora that the tests of tokenizing share."""

import io
import json
import tarfile

import numpy as np
import soundfile

RATE = 16_000


def sound(seconds=0.2, seed=0, format="WAV"):
    """The bytes of a recording."""
    file = io.BytesIO()
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE))
    soundfile.write(file, samples, RATE, format=format)
    return file.getvalue()


def write_tar(path, members):
    """Writes a tar file of names and contents, in order."""
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def samples(count, first=0):
    """Members of WebDataset's samples: sound, JSON and a text."""
    return [
        member
        for index in range(first, first + count)
        for member in (
            (f"clips/{index:04d}.wav", sound(seed=index)),
            (f"clips/{index:04d}.json", json.dumps({"speaker": f"s{index}"}).encode()),
            (f"clips/{index:04d}.txt", f"words {index}".encode()),
        )
    ]


def write_cuts(path, clips, seconds=0.2):
    """Writes lhotse's cuts of recordings: two supervisions each."""
    lines = []
    for index, clip in enumerate(clips):
        source = {"type": "file", "channels": [0], "source": str(clip)}
        recording = {
            "id": f"r{index}",
            "sources": [source],
            "sampling_rate": RATE,
            "num_samples": round(seconds * RATE),
        }
        halves = [
            {"id": f"c{index}-{n}", "start": n * seconds / 2, "duration": seconds / 2, "text": f"half {n}"}
            for n in range(2)
        ]
        cut = {"id": f"c{index}", "start": 0.0, "duration": seconds, "channel": 0, "type": "MonoCut"}
        lines.append(json.dumps({**cut, "recording": recording, "supervisions": halves}) + "\n")
    path.write_text("".join(lines))
    return path
