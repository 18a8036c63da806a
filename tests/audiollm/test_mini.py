"""The embedded model: every command takes it where no other is named, and it does what its card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile as sf

from audiollm.cli import main
from audiollm.data.corpora.clips import Clip
from audiollm.data.corpora.sample_corpus import load_sample_corpus
from audiollm.mini import mini_folder
from audiollm.modeling import AudioLLM
from audiollm.prompts import instruction

BYTE_BUDGET = 60_000_000


@pytest.fixture(scope="module")
def held_out() -> list[Clip]:
    return [clip for clip in load_sample_corpus() if clip.split == "test"]


@pytest.fixture(scope="module")
def english(held_out: list[Clip]) -> str:
    return str(next(clip.audio for clip in held_out if clip.language == "en"))


def test_it_is_small_has_a_card_and_the_whole_architecture() -> None:
    folder = mini_folder()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= BYTE_BUDGET
    card = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("## What it can do, on held-out clips", "## Data", "## Limits", "## Licence"):
        assert heading in card
    tokenizer = AudioLLM.from_pretrained().processor.audio_tokenizer
    assert (tokenizer.codebook_size, tokenizer.frame_rate) == (8192, 25)
    assert tokenizer.sae_is_active
    assert tokenizer.can_decode


def test_it_tells_speech_sounds_and_music_apart(held_out: list[Clip]) -> None:
    model = AudioLLM.from_pretrained()
    clips = [clip for clip in held_out if clip.language in (None, "en")]
    chosen = [clip for name in ("speech", "sound", "music") for clip in [c for c in clips if c.sound_type == name][:6]]
    answers = [model.ask(str(clip.audio), instruction("kind"), max_new_tokens=8) for clip in chosen]
    right = sum(answer == clip.sound_type for answer, clip in zip(answers, chosen, strict=True))
    assert right >= 0.7 * len(chosen), list(zip(answers, (clip.sound_type for clip in chosen), strict=True))


def test_commands_listen_with_it(english: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["transcribe", english, "--json"])
    assert json.loads(capsys.readouterr().out)["text"]
    main(["describe", english, "--question", "Is the speaker a man or a woman?"])
    assert capsys.readouterr().out == "A woman.\n"


def test_commands_make_codes_and_sound_with_it(
    english: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["tokenize", english, str(tmp_path / "codes.jsonl")])
    [record] = [json.loads(line) for line in (tmp_path / "codes.jsonl").read_text().splitlines()]
    seconds = sf.info(english).duration
    assert len(record["codes"]) == pytest.approx(25 * seconds, abs=1)
    main(["reconstruct", english, str(tmp_path / "again.wav")])
    assert sf.info(tmp_path / "again.wav").duration == pytest.approx(seconds, abs=0.1)
    main(["speak", "The kettle is on.", "--output", str(tmp_path / "kettle.wav")])
    spoken = sf.info(tmp_path / "kettle.wav")
    assert spoken.samplerate == 22050
    assert 0.2 < spoken.duration < 30
    capsys.readouterr()
