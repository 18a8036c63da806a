"""The file of a study: which tokenizers, on which data, by which measures, and the LLM that is trained on each.

One YAML file. Every setting is checked before anything is computed, and what there is not is named with its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audiollm.benchmarks.codes.clustering import Distance, Scale
from audiollm.benchmarks.codes.stability import parse_condition
from audiollm.benchmarks.speech.reconstruction_report import METRICS
from audiollm.data.audio.channels import Mono
from audiollm.data.corpora.build import CORPORA
from audiollm.program import check_config_file, did_you_mean, made_of

from .floors import MuLawSettings, OpusSettings

SAMPLE = "sample"
"""Stands for the recordings that ship with the project."""
CORPUS = "corpus:"
"""Before the name of a corpus that package registries carry; it is built in the run's folder."""
SMALL = "small"
"""Stands for a small LLM with random weights."""
ORIGINAL = "original"
"""Column of the recordings themselves."""
# Not bfloat16, which is about the number format of one kind of tokenizer.
CONDITIONS = ("white:20", "white:10", "reverberation:0.3", "mp3", "shift:0.5", "chunks:1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*")


@dataclass(frozen=True, kw_only=True)
class KMeansSettings:
    """A codebook by k-means on layers of a Whisper encoder, fitted to recordings of the study; nothing is trained."""

    whisper: str
    """Folder or Hub id of a Whisper model; whisper-tiny.en and whisper-base come from a package index."""
    size: int = 1024
    """Entries of the codebook."""
    data: str = ""
    """Data of the study to fit it to; the first of them if not given."""
    split: str | None = None
    """Of these data, only records of this split."""
    max_clips: int | None = 400
    """Of these, so many at most, evenly spread."""
    depth: float = 0.75
    """Share of the encoder's layers, of which two are the least."""
    seed: int = 0
    """Of the frames that entries start on."""

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"size={self.size}: use 2 entries or more")
        if not 0 < self.depth <= 1:
            raise ValueError(f"depth={self.depth:g}: use a share in (0, 1], such as 0.75")
        if self.max_clips is not None and self.max_clips < 1:
            raise ValueError(f"max_clips={self.max_clips}: use 1 or more")


TokenizerSource = str | KMeansSettings | MuLawSettings | OpusSettings
_SOURCES: Mapping[str, type[Any]] = {"kmeans": KMeansSettings, "mulaw": MuLawSettings, "opus": OpusSettings}


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Recordings of a study."""

    path: str
    """Records with audio (JSONL, parquet, …), a folder of ESC-50, sample (the recordings that ship), or corpus: and the
    name of one from package registries, such as corpus:game-sounds."""
    split: str | None = None
    """Only records whose split is this."""
    sound_type: str | None = None
    """Only records of this sound_type, such as speech."""
    language: str | None = None
    """Only records in this language."""
    label_key: str = "label"
    """Key of the class."""
    max_clips: int | None = None
    """Use so many at most, evenly spread over the records."""
    min_clips_per_class: int = 2
    """Where classes are told apart, smaller ones are left out."""
    mono: Mono = "first"
    """Which channel is heard: the first one, or the mean of all."""

    def __post_init__(self) -> None:
        if self.max_clips is not None and self.max_clips < 1:
            raise ValueError(f"max_clips={self.max_clips}: use 1 or more")
        corpus = self.path.removeprefix(CORPUS)
        if self.path.startswith(CORPUS) and corpus not in CORPORA:
            raise ValueError(f"path={self.path}: there is no such corpus{did_you_mean(corpus, CORPORA)}")


@dataclass(frozen=True, kw_only=True)
class CodesSettings:
    """Which codes occur, and how evenly."""

    data: tuple[str, ...]
    """Names of data."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionSettings:
    """What recordings keep in the codes."""

    data: tuple[str, ...]
    """Names of data; word error rates are of records with text."""
    metrics: tuple[str, ...] = ("stoi", "mel_distance")
    """Distances to the original: stoi, pesq, mel_distance, mcd."""
    language: str = "en"
    """Of the speech."""
    asr: str = "whisper-tiny.en"
    """Recognizer, as for `audiollm bench reconstruction`, or none."""
    similarity: str = "resemblyzer"
    """Speaker encoder that measures likeness, or none."""
    mos: str = "dnsmos"
    """Predictor of opinion, or none."""
    voice: Literal["auto", "none"] = "auto"
    """Whether the original's voice is described to decoders that take a speaker's vector; auto: where one fits."""
    speaker_encoder: str = "resemblyzer"
    """Which encoder describes it."""
    steps: int | None = None
    """Of decoders that have a flow model; their own number if not given."""
    seed: int = 42
    """Of such a decoder's noise."""

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if metric not in METRICS:
                raise ValueError(f"metrics: no metric {metric!r}; there are {', '.join(METRICS)}")


@dataclass(frozen=True, kw_only=True)
class ClassesSettings:
    """Whether codes tell classes of sounds apart: clustering of their histograms, and probes."""

    data: tuple[str, ...]
    """Names of data with classes. Probes need records of split train and others, or folds."""
    scale: Scale = "l1"
    """Of the histograms."""
    distance: Distance = "euclidean"
    """Of the silhouette."""
    num_restarts: int = 10
    """Starts of k-means, of which the tightest counts."""
    num_seeds: int = 10
    """Runs of k-means, whose mean purity is shown."""


@dataclass(frozen=True, kw_only=True)
class StabilitySettings:
    """How many codes change when a clip does."""

    data: tuple[str, ...]
    """Names of data."""
    conditions: tuple[str, ...] = CONDITIONS
    """What is done to the clips, as for `audiollm bench stability`."""
    seed: int = 0
    """Of noise and rooms."""

    def __post_init__(self) -> None:
        for name in self.conditions:
            if parse_condition(name).kind == "bfloat16":
                raise ValueError("conditions: bfloat16 is about one kind of tokenizer; leave it out of a comparison")


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """How long encoding and decoding take: all tokenizers in turns, on this machine, in one run."""

    data: tuple[str, ...]
    """Names of data."""
    rounds: int = 3
    """Timings of each, after one that does not count."""
    max_clips: int = 8
    """Of the data, so many."""

    def __post_init__(self) -> None:
        for name in ("rounds", "max_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use 1 or more")


MeasureSettings = CodesSettings | ReconstructionSettings | ClassesSettings | StabilitySettings | SpeedSettings
MEASURES: Mapping[str, type[Any]] = {
    "codes": CodesSettings,
    "reconstruction": ReconstructionSettings,
    "classes": ClassesSettings,
    "stability": StabilitySettings,
    "speed": SpeedSettings,
}


@dataclass(frozen=True, kw_only=True)
class UnderstandingSettings:
    """Fine-tuning on questions about recordings, and the sets that it is scored on."""

    train_data: str
    """Conversations, or sample: questions that the labels of the recordings that ship answer."""
    eval_data: str | None = None
    """Held-out conversations, whose loss is reported. With sample it is made, too."""
    mmau: str | None = None
    """Set of questions in the layout of MMAU. With sample the sets are made, too."""
    mmar: str | None = None
    """Set in the layout of MMAR."""
    mmsu: str | None = None
    """Set in the layout of MMSU."""
    prompt: str | None = None
    """How the sets are asked; the benchmark's own way if not given, and with sample the way of the training."""
    limit: int | None = None
    """Only so many questions of each set, the first ones: sets often stand sorted by kind of sound."""
    max_steps: int = 200
    """Updates."""
    settings: dict[str, Any] | None = None
    """Further settings of training/sft.py."""


@dataclass(frozen=True, kw_only=True)
class SpeechSettings:
    """Fine-tuning to speak texts, with a voice that is described, for tokenizers that can decode; and its score."""

    train_data: str
    """Conversations with spoken answers, or sample: the English speech that ships."""
    eval_data: str | None = None
    """Held-out conversations. With sample it is made, too."""
    meta: str | None = None
    """A list in the layout of SEED-TTS-eval. With sample it is made, too."""
    language: str = "en"
    """Of the list."""
    asr: str = "whisper-tiny.en"
    """Recognizer, or none."""
    similarity: str = "resemblyzer"
    """Speaker encoder that measures likeness, or none."""
    mos: str = "dnsmos"
    """Predictor of opinion, or none."""
    max_seconds: float = 10.0
    """Of one utterance."""
    limit: int | None = None
    """Only so many lines of the list."""
    max_steps: int = 200
    """Updates."""
    settings: dict[str, Any] | None = None
    """Further settings of training/sft.py."""


PartSettings = UnderstandingSettings | SpeechSettings
PARTS: Mapping[str, type[Any]] = {"understanding": UnderstandingSettings, "speech": SpeechSettings}


@dataclass(frozen=True, kw_only=True)
class DownstreamSettings:
    """The same LLM, trained on each tokenizer with the same data, updates and seeds."""

    llm: str = SMALL
    """Folder or Hub id of a causal LM to extend, or small: a small Qwen2 architecture with random weights."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of new rows, data order and, of a small LLM, all weights: one run of each tokenizer for each."""
    tokenizers: tuple[str, ...] = ()
    """Names of those that an LLM is trained on; all that are folders if not given."""
    keep_models: bool = False
    """Keep the trained weights, and not their figures alone."""
    parts: tuple[tuple[str, PartSettings], ...] = ()
    """What is trained, by name."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)}: give one or more, each once, such as [0, 1, 2]")
        if not self.parts:
            raise ValueError(f"nothing is trained: give one of {', '.join(PARTS)}")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A whole study.

    Attributes:
        title: above the tables.
        tokenizers: by name: a folder or Hub id (or ``mini``), or what is made here.
        data: by name.
        measures: by name, settings with the data that each is of.
        downstream: the LLM that is trained on each tokenizer; None: none is.
        device: torch device; None: the first GPU when there is one.
        num_threads: of torch on the CPU; None: its own choice.
    """

    title: str
    tokenizers: Mapping[str, TokenizerSource]
    data: Mapping[str, DataSettings]
    measures: Mapping[str, MeasureSettings]
    downstream: DownstreamSettings | None = None
    device: str | None = None
    num_threads: int | None = None

    def parts(self) -> Iterator[tuple[str, str, MeasureSettings]]:
        """Each measure on each of its data: measure, data and settings."""
        for measure, settings in self.measures.items():
            for data in settings.data:
                yield measure, data, settings


@dataclass(frozen=True, kw_only=True)
class _Head:
    title: str = "Audio tokenizers compared"
    device: str | None = None
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads={self.num_threads}: use 1 or more")


_NOTHING = Study(title=_Head.title, tokenizers={}, data={}, measures={})
"""What a study that extends no other starts from."""


def read_study(path: str | os.PathLike[str]) -> Study:
    """Reads the file of a study. Relative paths in it start from its folder.

    A study that `extends` another has everything of it by name, and what it names itself is added or takes its place.

    Raises:
        ValueError: naming file, place and what is wrong: a setting that does not exist, a value that does not fit, data
            that are not in the file, studies that extend one another in a circle.
        OSError: if the file, or one that it extends, cannot be read.
    """
    return _read(Path(path), extending=())


def _read(file: Path, extending: tuple[Path, ...]) -> Study:
    """Reads a study that those of ``extending`` (resolved paths, the asked for first) stand on."""
    content = check_config_file(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} holds no study: it names tokenizers, data and measures")
    given = dict(content)
    folder = file.resolve().parent
    base = _base(given.pop("extends"), file, extending) if "extends" in given else _NOTHING
    sections = {name: _section(given, name, file) for name in ("tokenizers", "data", "measures")}
    says_downstream = "downstream" in given
    downstream = given.pop("downstream", None)
    known = ["extends", "tokenizers", "data", "measures", "downstream", *_Head.__dataclass_fields__]
    for key in given:
        if key not in known:
            raise ValueError(f"{file}: {key!r} is not known{did_you_mean(str(key), known)}; use {', '.join(known)}")
    inherited = {key: getattr(base, key) for key in _Head.__dataclass_fields__}
    head = made_of(_Head, {**inherited, **given}, str(file))
    data = {**base.data, **{name: _data(name, one, file, folder) for name, one in sections["data"].items()}}
    tokenizers = {
        **base.tokenizers,
        **{name: _source(name, one, file, folder) for name, one in sections["tokenizers"].items()},
    }
    measures = {
        **base.measures,
        **{name: _measure(name, one, file, data) for name, one in sections["measures"].items()},
    }
    if not tokenizers:
        raise ValueError(f"{file}: tokenizers is empty: name at least one")
    for name, source in tokenizers.items():
        if isinstance(source, KMeansSettings) and source.data and source.data not in data:
            raise ValueError(f"{file}: tokenizers.{name}.kmeans.data: {_no_such(source.data, data)}")
        if isinstance(source, KMeansSettings) and not data:
            raise ValueError(f"{file}: tokenizers.{name}: k-means is fitted to data; name some")
    trained = None if says_downstream else base.downstream
    if downstream is not None:
        trained = _downstream(downstream, file, folder, tokenizers)
    if not measures and trained is None:
        raise ValueError(f"{file}: measures is empty: name at least one of {', '.join(MEASURES)}")
    return Study(
        title=head.title,
        tokenizers=tokenizers,
        data=data,
        measures=measures,
        downstream=trained,
        device=head.device,
        num_threads=head.num_threads,
    )


def _base(given: Any, file: Path, extending: tuple[Path, ...]) -> Study:
    """The study that ``file`` extends."""
    if not isinstance(given, str) or not given:
        raise ValueError(f"{file}: extends is {given!r}; name the file of another study, such as small.yaml")
    chain = (*extending, file.resolve())
    path = file.parent / given
    if path.resolve() in chain:
        raise ValueError(f"{file}: extends {given}, which extends it in turn")
    if not path.is_file():
        raise FileNotFoundError(f"{file}: extends {given}, and there is no such file ({path})")
    return _read(path, chain)


def _section(given: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    section = given.pop(name, {})
    if not isinstance(section, Mapping):
        raise ValueError(f"{file}: {name} must be settings by name, as in `{name}: {{first: …}}`")
    for key in section:
        # Names become folders and headings.
        if not isinstance(key, str) or not _NAME.fullmatch(key) or key == ORIGINAL:
            raise ValueError(f"{file}: {name}: {key!r} cannot be a name here; use letters, digits, blanks and . _ + -")
    return dict(section)


def _source(name: str, given: Any, file: Path, folder: Path) -> TokenizerSource:
    where = f"{file}: tokenizers.{name}"
    kinds = ["path", *_SOURCES]
    if isinstance(given, str):
        given = {"path": given}
    if not isinstance(given, Mapping) or len(given) != 1:
        raise ValueError(f"{where}: give a folder or Hub id, or one of {', '.join(kinds)}")
    [(kind, settings)] = given.items()
    if kind not in kinds:
        raise ValueError(
            f"{where}: {kind!r} is not known{did_you_mean(str(kind), kinds)}; use one of {', '.join(kinds)}"
        )
    if kind == "path":
        if not isinstance(settings, str) or not settings:
            raise ValueError(f"{where}: path is {settings!r}; give a folder or Hub id, or mini")
        return _place(settings, folder)
    if settings is not None and not isinstance(settings, Mapping):
        raise ValueError(f"{where}.{kind}: give settings by name, or nothing for the usual ones")
    settings = dict(settings or {})
    if isinstance(settings.get("whisper"), str):
        settings["whisper"] = _place(settings["whisper"], folder)
    source: TokenizerSource = made_of(_SOURCES[kind], settings, f"{where}.{kind}")
    return source


def _data(name: str, given: Any, file: Path, folder: Path) -> DataSettings:
    where = f"{file}: data.{name}"
    if isinstance(given, str):
        given = {"path": given}
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: give a path, or settings with one")
    if isinstance(given.get("path"), str):
        given = {**given, "path": _place(given["path"], folder)}
    data: DataSettings = made_of(DataSettings, given, where)
    return data


def _measure(name: str, given: Any, file: Path, data: Mapping[str, DataSettings]) -> MeasureSettings:
    where = f"{file}: measures.{name}"
    if name not in MEASURES:
        raise ValueError(f"{where}: no such measure{did_you_mean(name, MEASURES)}; there are {', '.join(MEASURES)}")
    if isinstance(given, (str, list)):
        given = {"data": given}
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: name its data, or give settings with them")
    if isinstance(given.get("data"), str):
        given = {**given, "data": [given["data"]]}
    settings: MeasureSettings = made_of(MEASURES[name], given, where)
    for one in settings.data:
        if one not in data:
            raise ValueError(f"{where}: {_no_such(one, data)}")
    if not settings.data or len(set(settings.data)) < len(settings.data):
        raise ValueError(f"{where}: data={list(settings.data)}: name one or more, each once")
    return settings


def _downstream(given: Any, file: Path, folder: Path, tokenizers: Mapping[str, TokenizerSource]) -> DownstreamSettings:
    where = f"{file}: downstream"
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: give settings by name, with one of {', '.join(PARTS)}")
    own = {key: value for key, value in given.items() if key not in PARTS}
    parts = []
    for name in (name for name in PARTS if name in given):
        settings = given[name]
        if not isinstance(settings, Mapping):
            raise ValueError(f"{where}.{name}: give settings with train_data")
        paths = ("train_data", "eval_data", "mmau", "mmar", "mmsu", "meta")
        placed = {key: _place(settings[key], folder) for key in paths if isinstance(settings.get(key), str)}
        parts.append((name, made_of(PARTS[name], {**settings, **placed}, f"{where}.{name}")))
    if isinstance(own.get("llm"), str):
        own["llm"] = _place(own["llm"], folder)
    made: DownstreamSettings = made_of(DownstreamSettings, own, where, parts=tuple(parts))
    for name in made.tokenizers:
        if name not in tokenizers:
            raise ValueError(f"{where}.tokenizers: {_no_such(name, tokenizers)}")
        if isinstance(tokenizers[name], (MuLawSettings, OpusSettings)):
            raise ValueError(f"{where}.tokenizers: {name} is a floor without a checkpoint; no LLM is extended by it")
    return made


def _place(path: str, folder: Path) -> str:
    """A path from the folder of the file, where there is something; names and Hub ids stay as they are."""
    return str(folder / path) if path and (folder / path).exists() else path


def _no_such(name: str, known: Mapping[str, Any]) -> str:
    return f"there is no {name!r} in the file{did_you_mean(name, known)}; there are {', '.join(known) or 'none'}"
