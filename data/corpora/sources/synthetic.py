"""English sentences of our own grammars and a dictionary, read by free synthesizers: four voices of Flite, two of Pico.

Synthetic speech is no substitute for recordings, but its texts, voices, speeds and pitches are known exactly, and
anyone can make any amount of it. Flite comes as Debian packages; it is run from the folder they are unpacked to.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

from torch import Tensor

from audiollm.data.audio.reading import load_audio
from audiollm.data.corpora.clips import ClipMetadata, CorpusError, Recording
from audiollm.data.files.atomic import atomic_folder
from audiollm.data.packages import Package
from audiollm.data.sampling import draw
from audiollm.tokenizer.cache import cache_folder
from audiollm.tokenizer.configuration import SAMPLE_RATE

from . import pico
from .open_sentences import OpenSentence, open_sentences
from .sentences import grammar_sentences
from .wordnet import ATTRIBUTION as EXAMPLE_ATTRIBUTION
from .wordnet import PACKAGE as EXAMPLE_PACKAGE

NAME = "flite-speech"
NUM_CLIPS = 4000
VOICES_PER_SENTENCE = 2
OPEN_NAME = "open-speech"
OPEN_NUM_CLIPS = 24_000
PACKAGES = (
    Package("deb", "flite", "2.2-5", "f4ce03470bf9974c2cb9cacd981e6be29339ef4c97cf994dd6fa3f90e6544db9"),
    Package("deb", "libflite1", "2.2-5", "bfa8c591f1b47730b30b372ec38e02918a1c9795eada67684e1746390ad2f061"),
    # Flite can also play what it reads, so it wants this one; nothing is played here.
    Package("deb", "libasound2", "1.2.8-1+b1", "44c77b076a7b11ae99712439022d822245b1994c435da564ebd320bb676faf4c"),
)
OPEN_PACKAGES = (*PACKAGES, pico.PACKAGE, EXAMPLE_PACKAGE)
LICENCE = "MIT-Festival"
WORDNET_LICENCE = "LicenseRef-WordNet-3.0"
SYNTHESIS_TIMEOUT_SECONDS = 120
# Factors of the duration of every sound; most sentences are read at the voice's own speed and pitch.
SPEEDS = {"fast": 0.85, "moderate": 1.0, "slow": 1.2}
PITCHES = {"low": 0.88, "medium": 1.0, "high": 1.13}
# Only to have a duration before the sentence is read; the manifest of a built corpus holds the true one.
_CHARACTERS_PER_SECOND = 15.0


@dataclass(frozen=True)
class Voice:
    """One voice of a synthesizer."""

    name: str
    gender: str
    accent: str
    maker: str
    pitch_hz: float | None
    """Its own mean fundamental frequency; None for a voice that ignores another one."""
    pico_language: str | None = None
    """How Pico calls it; None for a voice of Flite."""

    @property
    def speaker(self) -> str:
        """What the manifest calls it."""
        return f"{'pico' if self.pico_language else NAME}/{self.name}"

    def attributes(self, speed: str = "moderate", pitch: str = "medium") -> dict[str, str]:
        """What is said of it in the manifest when it reads at that speed and pitch."""
        spoken = {"gender": self.gender, "age": "adult", "accent": self.accent, "speed": speed}
        return spoken | ({"pitch": pitch} if self.pitch_hz else {})


VOICES = (
    Voice("slt", "female", "American", "CMU ARCTIC voice slt", 170.0),
    Voice("rms", "male", "American", "CMU ARCTIC voice rms", None),
    Voice("awb", "male", "Scottish", "CMU ARCTIC voice awb, Alan W Black", 132.0),
    Voice("kal16", "male", "American", "diphone voice kal, Kevin A. Lenzo", 95.0),
)
# Those that recognizers understand best, of both genders: whisper-tiny.en mishears 6, 9 and 12 % of their words.
CLEAR_VOICES = (
    Voice("pico-gb", "female", "British", "SVOX Pico, voice en-GB kh0", 195.0, "en-GB"),
    Voice("pico-us", "female", "American", "SVOX Pico, voice en-US lh0", 180.0, "en-US"),
    VOICES[1],
)


def recordings(num_clips: int = NUM_CLIPS, texts: Sequence[str] = (), seed: int = 0) -> list[Recording]:
    """Sentences and who reads them how; they are read when a recording is loaded.

    Every sentence is read by two voices, all pairs of voices in turn; speed and pitch are drawn for each clip. For
    another number of clips than the corpus has, give `audiollm.data.corpora.build.build_corpus` a
    ``dataclasses.replace(CORPORA["flite-speech"], recordings=partial(recordings, 200), num_clips=200)``.

    Args:
        num_clips: how many clips.
        texts: read these first; sentences of the grammar follow.
        seed: another seed, other sentences.

    Returns:
        Recordings with transcript, voice and its attributes. Their group is the sentence, and ``duration_seconds`` an
        estimate until they are loaded.

    Raises:
        ValueError: if there are fewer than one clip, an empty text, or the grammar gives no more sentences.
        PackageError: if a package cannot be fetched.
        CorpusError: if the machine cannot run the packages' program.
    """
    if num_clips < 1:
        raise ValueError(f"num_clips={num_clips}: use 1 or more")
    if not all(text.strip() for text in texts):
        raise ValueError("a text to read is empty; remove it")
    num_sentences = -(-num_clips // VOICES_PER_SENTENCE)
    given = list(dict.fromkeys(" ".join(text.split()) for text in texts))[:num_sentences]
    drawn = (text for text in grammar_sentences(num_sentences, seed) if text not in given)
    sentences = [*given, *drawn][:num_sentences]
    program = flite_program()
    pairs = list(combinations(VOICES, VOICES_PER_SENTENCE))
    return [
        _recording(program, OpenSentence(text, "grammar"), number, voice, NAME, _drawn_manner(text, voice, seed))
        for number, text in enumerate(sentences)
        for voice in pairs[number % len(pairs)]
    ][:num_clips]


def open_recordings(
    num_clips: int = OPEN_NUM_CLIPS,
    seed: int = 0,
    *,
    voices: Sequence[Voice] = CLEAR_VOICES,
    leave_out: Callable[[str], bool] | None = None,
    examples: Sequence[str] | None = None,
) -> list[Recording]:
    """Sentences of open vocabulary, each read by one voice, all voices in turn; speed and pitch are drawn.

    One voice for each, other than in `recordings`: what a model can say depends on how many words it has read.

    Args:
        num_clips: how many sentences.
        seed: another seed, other sentences.
        voices: who reads.
        leave_out: as for `audiollm.data.corpora.sources.open_sentences.open_sentences`, and so are ``examples``.

    Returns:
        Recordings as from `recordings`; those of a dictionary's examples name it as an author too.

    Raises:
        ValueError: if there are fewer than one clip, no voice, or not so many sentences.
        PackageError: if a package cannot be fetched.
        CorpusError: if the machine cannot run the packages' program.
    """
    if num_clips < 1:
        raise ValueError(f"num_clips={num_clips}: use 1 or more")
    if not voices:
        raise ValueError("voices is empty: name at least one")
    sentences = open_sentences(num_clips, seed, examples=examples, leave_out=leave_out)
    program = _flite_for(voices)
    in_turn = ((number, sentence, voices[number % len(voices)]) for number, sentence in enumerate(sentences))
    return [
        _recording(program, sentence, number, voice, OPEN_NAME, _drawn_manner(sentence.text, voice, seed))
        for number, sentence, voice in in_turn
    ]


def plain_recordings(texts: Sequence[str], corpus: str, voices: Sequence[Voice] = CLEAR_VOICES) -> list[Recording]:
    """Every text read by every voice, at its own speed and pitch.

    Args:
        texts: English texts of our own, none empty.
        corpus: what the clips' ids begin with.

    Raises:
        PackageError: if a package cannot be fetched.
        CorpusError: if the machine cannot run the packages' program.
    """
    program = _flite_for(voices)
    return [
        _recording(program, OpenSentence(text, "grammar"), number, voice, corpus, ("moderate", "medium"))
        for number, text in enumerate(texts)
        for voice in voices
    ]


def _flite_for(voices: Sequence[Voice]) -> Path | None:
    """Flite, at once, so that what it lacks is told before anything is read; None where no voice is its own."""
    return None if all(voice.pico_language for voice in voices) else flite_program()


def flite_program() -> Path:
    """The synthesizer, with its libraries beside it.

    Raises:
        PackageError: if a package cannot be fetched.
        CorpusError: if the machine is of another kind than the packages.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise CorpusError(
            f"{NAME} needs Linux on x86_64, for which its packages are pinned; this is {platform.system()} on "
            f"{platform.machine()}. Build the corpus on such a machine and copy its folder"
        )
    folder = cache_folder() / "flite" / "-".join(package.sha256[:8] for package in PACKAGES)
    if not folder.is_dir():
        program, *libraries = PACKAGES
        with atomic_folder(folder, existing="keep") as temporary:
            shutil.copy(program.extract("usr/bin/flite") / "usr/bin/flite", temporary / "flite")
            (temporary / "flite").chmod(0o755)
            for package in libraries:
                for library in package.extract("usr/lib/*/lib*.so.*").rglob("lib*.so.*"):
                    shutil.copy(library, temporary / _library_name(library.name))
    return folder / "flite"


def synthesize(
    text: str, voice: str, *, duration_factor: float = 1.0, pitch_hz: float | None = None, program: Path | None = None
) -> Tensor:
    """Reads a text.

    Args:
        text: English; numbers and abbreviations are spelt out as the synthesizer sees fit.
        voice: name of one of `VOICES` or `CLEAR_VOICES`.
        duration_factor: 2 is half as fast.
        pitch_hz: mean fundamental frequency; None for the voice's own.
        program: what `flite_program` returned; None: found when it is needed.

    Returns:
        float32 ``[N]`` in [-1, 1] at 16 kHz.

    Raises:
        ValueError: if the voice is unknown.
        PackageError, CorpusError: if the synthesizer cannot be had here, fails or reads nothing.
    """
    voices = {known.name: known for known in (*VOICES, *CLEAR_VOICES)}
    if voice not in voices:  # Flite itself would read on with another voice
        raise ValueError(f"voice {voice!r}: use one of {', '.join(voices)}")
    if language := voices[voice].pico_language:
        own_pitch = voices[voice].pitch_hz
        pitch = 100 if pitch_hz is None or own_pitch is None else round(100 * pitch_hz / own_pitch)
        return pico.synthesize(text, language, speed=round(100 / duration_factor), pitch=pitch)
    program = program or flite_program()
    settings = ["--setf", f"duration_stretch={duration_factor}"]
    if pitch_hz is not None:
        settings += ["--setf", f"int_f0_target_mean={pitch_hz}"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(program.parent), "LC_ALL": "C"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        # A text without a blank would be taken for the name of a file, but for -t.
        command = [str(program), "-voice", voice, *settings, "-o", str(path), "-t", text]
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", check=False,
            timeout=SYNTHESIS_TIMEOUT_SECONDS,
        )  # fmt: skip
        if result.returncode != 0 or not path.is_file():
            raise CorpusError(f"flite could not read {text!r} with the voice {voice}: {result.stderr.strip()[-300:]}")
        waveform, _ = load_audio(path, SAMPLE_RATE)
    if not len(waveform):
        raise CorpusError(f"flite said nothing for {text!r}; give English text with letters or digits")
    return waveform


def _drawn_manner(text: str, voice: Voice, seed: int) -> tuple[str, str]:
    """Speed and pitch of a clip."""
    key = f"{seed} {voice.name} {text}"
    # "moderate" and "medium" stand twice: the plain way of reading is the most common one.
    speed = ("fast", "moderate", "moderate", "slow")[draw("speed", key, 4)]
    return speed, ("low", "medium", "medium", "high")[draw("pitch", key, 4)] if voice.pitch_hz else "medium"


def _recording(
    program: Path | None, sentence: OpenSentence, number: int, voice: Voice, corpus: str, manner: tuple[str, str]
) -> Recording:
    text, (speed, pitch) = sentence.text, manner
    if voice.pico_language:
        reader, licence, package = f"Read by {voice.maker}, © SVOX AG", pico.LICENCE, pico.PACKAGE
    else:
        reader, licence = f"Read by Flite ({voice.maker}), © Carnegie Mellon University", LICENCE
        package = PACKAGES[1]
    is_example = sentence.source == "example"
    metadata = ClipMetadata(
        id=f"{corpus}/{voice.name}/{number:05d}",
        sound_type="speech",
        group=f"{corpus} text {' '.join(re.findall(r'[a-z0-9]+', text.lower()))}",
        duration_seconds=round(SPEEDS[speed] * (0.5 + len(text) / _CHARACTERS_PER_SECOND), 4),
        licence=f"{licence} AND {WORDNET_LICENCE}" if is_example else licence,
        attribution=f"{reader}; {EXAMPLE_ATTRIBUTION}" if is_example else reader,
        source=f"{package}: voice {voice.name}",
        text=text,
        language="en",
        speaker=voice.speaker,
        attributes=voice.attributes(speed, pitch),
    )
    load = partial(
        synthesize,
        text,
        voice.name,
        duration_factor=SPEEDS[speed],
        pitch_hz=round(voice.pitch_hz * PITCHES[pitch], 1) if voice.pitch_hz else None,
        program=program,
    )
    return Recording(metadata=metadata, load=load)


def _library_name(file_name: str) -> str:
    """The name that programs ask for: archives hold it as a link, and links are not unpacked."""
    if file_name.startswith("libflite"):
        return re.sub(r"\.so\..*", ".so.1", file_name)  # version 2.2 of the files, version 1 of the interface
    return re.sub(r"(\.so\.\d+)\..*", r"\1", file_name)
