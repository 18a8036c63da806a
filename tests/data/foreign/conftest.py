"""A folder with recordings, and files of other projects that point at them."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiollm.data.conversion import convert_data

RATE = 8000


def wav_seconds(path: Path, seconds: float, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(len(path.name)).uniform(-0.5, 0.5, (int(seconds * RATE), channels))
    soundfile.write(path, samples, RATE)
    return path


class Corpus:
    """Writes files into a folder and converts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lines(self, name: str, *records, compressed: bool = False) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records).encode()
        path.write_bytes(gzip.compress(content) if compressed else content)
        return path

    def wav(self, name: str, seconds: float = 1.0, channels: int = 1) -> Path:
        return wav_seconds(self.folder / name, seconds, channels)

    def convert(self, source, output: str = "out/ours.jsonl", **options) -> list[dict]:
        """Our records, with their audio as paths inside the folder."""
        path = self.folder / output
        self.report = convert_data(source, path, overwrite=True, **options)
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert len(records) == self.report.num_records
        for record in records:
            parts = [part for message in record.get("messages", ()) for part in message["content"]]
            for holder, key in [(part, "path") for part in parts] + [(record, "audio")]:
                if key in holder:
                    file = (path.parent / holder[key]).resolve()
                    assert file.is_file()
                    holder[key] = file.relative_to(self.folder.resolve()).as_posix()
        return records

    def rejections(self, source, output: str = "out/ours.jsonl", **options) -> list[str]:
        """What is said of the records that come to nothing."""
        self.convert(source, output, skip_bad=True, **options)
        return self.rejected(output)

    def rejected(self, output: str = "out/ours.jsonl") -> list[str]:
        lines = (self.folder / f"{output}.rejected.jsonl").read_text(encoding="utf-8").splitlines()
        return ["{source}: {reason}".format(**json.loads(line)) for line in lines]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path)
    for name in ("a.wav", "b.wav"):
        made.wav(name)
    return made
