"""Pico is compiled once and reads the same samples each time; a machine that cannot compile it is told so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiollm.data.corpora.clips import CorpusError
from audiollm.data.corpora.sources import pico, synthetic
from audiollm.data.packages import PackageError


def test_languages_that_it_does_not_speak_are_refused():
    with pytest.raises(ValueError, match="'de-DE': use one of en-GB, en-US"):
        pico.synthesize("Guten Tag", "de-DE")


def test_a_machine_without_a_compiler_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(pico.shutil, "which", lambda name: None)
    with pytest.raises(CorpusError, match="needs a C compiler"):
        pico._compile(tmp_path, tmp_path / "libpico.so")


def test_what_does_not_compile_says_why(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "tts").mkdir()
    (tmp_path / "lib" / "broken.c").write_text("this is no C")
    with pytest.raises(CorpusError, match=r"ttspico 0\.3\.2 does not compile here.*broken\.c"):
        pico._compile(tmp_path, tmp_path / "libpico.so")


def test_voices_of_pico_are_told_speed_and_pitch_in_percent_of_their_own(monkeypatch):
    told = []
    monkeypatch.setattr(pico, "synthesize", lambda *text, **manner: told.append((*text, manner)) or torch.ones(1))
    voice = synthetic.CLEAR_VOICES[0]
    synthetic.synthesize("One.", voice.name, duration_factor=1.25, pitch_hz=voice.pitch_hz * 0.9)
    synthetic.synthesize("Two.", voice.name)
    assert told == [("One.", "en-GB", {"speed": 80, "pitch": 90}), ("Two.", "en-GB", {"speed": 100, "pitch": 100})]


@pytest.mark.slow
def test_pico_reads_the_same_samples_each_time():
    try:
        folder: Path = pico.pico_folder()
    except (PackageError, CorpusError) as error:
        pytest.skip(f"pico cannot be had here: {error}")
    assert (folder / "libpico.so").is_file()
    once, again = (pico.synthesize("The doctor sent an apple.", "en-GB") for _ in range(2))
    assert torch.equal(once, again)
    assert 0.05 < once.abs().max() <= 1
    pico.synthesize("Something else entirely.", "en-US")
    assert torch.equal(pico.synthesize("The doctor sent an apple.", "en-GB"), once)
    assert len(pico.synthesize("The doctor sent an apple.", "en-GB", speed=50)) > 1.5 * len(once)
    assert torch.equal(pico.synthesize("a < b", "en-GB"), pico.synthesize("a   b", "en-GB"))
