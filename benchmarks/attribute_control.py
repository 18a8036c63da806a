"""Control of the voice: whether a model speaks with the gender, age, emotion, pitch and speed it is asked for.

Every text is spoken once with every value of an attribute and the same seed. Gender, age and emotion are what a judge
hears (see ``attribute_judges``); pitch and speed are measured, and their level is the place of a recording among those
of the same text. Example::

    python benchmarks/attribute_control.py --model mini --judge tokenizer/stage2/model --output-dir results/voices
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table
from torch import Tensor

from audiollm import speaking
from audiollm.benchmarks.harness.actions import Actions, run_action
from audiollm.benchmarks.harness.figures import print_json, recorded_config, write_figures
from audiollm.benchmarks.harness.identity import RESULT_NAME, check_identity
from audiollm.benchmarks.harness.options import refuse_idle
from audiollm.benchmarks.speech.judges.attributes import (
    JUDGED,
    AttributeJudge,
    JudgeWords,
    median_pitch,
    open_judge,
    read_attributes,
    speech_seconds,
)
from audiollm.benchmarks.speech.synthesis import speaking_model_facts
from audiollm.data.audio.writing import save_audio
from audiollm.data.files.lock import locked_folder
from audiollm.data.voices.attributes import CLOSED_VALUES, VocalAttributes
from audiollm.data.voices.levels import characters_per_second
from audiollm.environment import find_device
from audiollm.modeling import AudioLLM
from audiollm.tables import print_table, table_console

MEASURED = ("pitch", "speed")
ALL_ATTRIBUTES = (*JUDGED, *MEASURED)
UNREADABLE, UNSAID, MISSING = "unreadable", "not said", "missing"
DEFAULT_TEXTS = (
    "The meeting has been moved to the second floor.",
    "Please leave your message after the tone.",
    "There are seven boats on the river today.",
    "I have put the letters on your desk.",
)

Speak = Callable[[str, VocalAttributes, int], tuple[Tensor, int]]
"""Says a text in a voice with a seed: float ``[N]`` in [-1, 1], and the rate in Hz."""


@dataclass(frozen=True, kw_only=True)
class AttributeControlConfig:
    """One model and one judge."""

    output_dir: str
    """Folder for recordings, the judge's words and result.json."""
    model: str = "mini"
    """Audio-LLM folder or Hub id, with a waveform decoder."""
    judge: str | None = None
    """Who hears gender, age and emotion: a training checkpoint of an audio tokenizer with its SAP decoder, or
    http://…/v1#model or hf:folder for a chat model that hears. Without one, only pitch and speed are measured."""
    attributes: tuple[str, ...] = ALL_ATTRIBUTES
    """Which."""
    texts: str | None = None
    """File with a text on each line; a few neutral sentences if not given."""
    seed: int = 0
    """Of what is drawn."""
    max_seconds: float | None = None
    """Of one utterance."""
    device: str | None = None
    """Torch device; the first GPU when there is one."""
    json: bool = False
    """Print the result without single recordings as JSON."""

    def __post_init__(self) -> None:
        for name in self.attributes:
            if name not in (*JUDGED, *MEASURED):
                raise ValueError(f"attributes: no attribute {name!r}; there are {', '.join((*JUDGED, *MEASURED))}")
        if not set(self.attributes) & set(JUDGED):
            refuse_idle(self, ["judge"], f"on {', '.join(self.attributes)}, which are measured")


@dataclass(frozen=True)
class Request:
    """One recording that is asked for."""

    text_number: int
    text: str
    attribute: str
    value: str

    @property
    def file_name(self) -> str:
        return f"{self.text_number:04d}_{self.attribute}_{self.value}.wav"


def requests_of(texts: Sequence[str], attributes: Sequence[str]) -> list[Request]:
    """Every text with every value of every attribute."""
    return [
        Request(number, text, name, value)
        for name in attributes
        for number, text in enumerate(texts)
        for value in CLOSED_VALUES[name]
    ]


def measure(
    config: AttributeControlConfig, speak: Speak | None = None, judge: AttributeJudge | None = None
) -> dict[str, Any]:
    """Speaks, listens and counts; a run that was stopped goes on.

    Args:
        config: what to run.
        speak: what speaks, in place of the model of ``config``.
        judge: who hears, in place of the judge of ``config``.

    Returns:
        The result, which is in ``result.json`` too.

    Raises:
        ValueError: a setting is wrong, the folder holds another run, or another process is at work on it.
        OSError: a model cannot be had, or the texts cannot be read.
    """
    folder, texts = Path(config.output_dir), read_texts(config.texts)
    judge = judge or (open_judge(config.judge, find_device(config.device)) if config.judge is not None else None)
    wanted = [name for name in config.attributes if judge is not None or name in MEASURED]
    unheard = [name for name in config.attributes if name not in wanted]
    if unheard and config.attributes != ALL_ATTRIBUTES:  # of all, those that need no judge are taken without one
        raise ValueError(f"{', '.join(unheard)}: these attributes need a judge, name one with --judge")
    requests = requests_of(texts, wanted)
    with locked_folder(folder):
        model: dict[str, str | None] = {"model": config.model}
        if speak is None:
            speak, model = _speaker(config)
        identity = model | {"texts": texts, "seed": config.seed, "max_seconds": config.max_seconds}
        check_identity(folder, identity)
        failures = _speak_all(speak, requests, folder / "wavs", config.seed)
        words = _ask_judge(judge, requests, folder) if judge is not None else {}
        observations = [_observation(request, folder / "wavs", words) for request in requests]
        _add_levels(requests, observations)
        result = {
            "benchmark": "attribute-control",
            **model,
            "judge": None if judge is None else judge.name,
            "num_texts": len(texts),
            "attributes": {name: _figures(name, requests, observations) for name in wanted},
            "failures": failures,
            "recordings": [
                {**asdict(request), "file": request.file_name, **one}
                for request, one in zip(requests, observations, strict=True)
            ],
            "config": recorded_config(config, device=find_device(config.device)),
        }
        write_figures(result, str(folder / RESULT_NAME))
        return result


def read_texts(path: str | None) -> list[str]:
    """Texts of a file, one on each line.

    Raises:
        ValueError: there is none.
    """
    if path is None:
        return list(DEFAULT_TEXTS)
    texts = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise ValueError(f"{path} holds no texts; write one on each line")
    return texts


def _speaker(config: AttributeControlConfig) -> tuple[Speak, dict[str, str | None]]:
    """What speaks, and which model it is."""
    model = AudioLLM.from_pretrained(config.model, device=find_device(config.device))
    limit: dict[str, Any] = {} if config.max_seconds is None else {"max_seconds": config.max_seconds}

    def say(text: str, voice: VocalAttributes, seed: int) -> tuple[Tensor, int]:
        result = speaking.speak(model, text, voice, seed=seed, quality="exact", **limit)
        return result.waveform, result.sample_rate

    return say, speaking_model_facts(model, config.model)


def _speak_all(speak: Speak, requests: Sequence[Request], folder: Path, seed: int) -> dict[str, str]:
    """Makes what is not there yet; returns the error of each recording that cannot be made."""
    folder.mkdir(parents=True, exist_ok=True)
    failures = {}
    for request in requests:
        path = folder / request.file_name
        if path.is_file():
            continue
        try:
            # One seed for all values: recordings of a text differ by what was asked alone.
            own_seed = zlib.crc32(f"{seed} {request.text_number}".encode()) % 2**31
            waveform, sample_rate = speak(request.text, VocalAttributes(**{request.attribute: request.value}), own_seed)
            if not len(waveform):
                raise ValueError("the model said nothing")
            save_audio(path, waveform, sample_rate)
        except (ValueError, RuntimeError, OSError) as error:
            failures[request.file_name] = f"{type(error).__name__}: {error}"
    return failures


def _ask_judge(judge: AttributeJudge, requests: Sequence[Request], folder: Path) -> dict[str, JudgeWords]:
    """The judge's words on each recording of a judged attribute; kept, so that a stopped run goes on."""
    path = folder / "judge.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("judge") != judge.name:
        kept = {}
    words = {name: JudgeWords(text, name in kept.get("cut", ())) for name, text in kept.get("words", {}).items()}
    for request in requests:
        name = request.file_name
        if request.attribute in JUDGED and name not in words and (folder / "wavs" / name).is_file():
            words[name] = judge.describe(folder / "wavs" / name)
            # After each recording: a judge may be slow or paid, and what it has said must outlive the run.
            texts = {name: one.text for name, one in words.items()}
            cut = [name for name, one in words.items() if one.is_cut]
            write_figures({"judge": judge.name, "words": texts, "cut": cut}, str(path))
    return words


def _observation(request: Request, folder: Path, words: Mapping[str, JudgeWords]) -> dict[str, Any]:
    """What is known of a recording; ``heard`` is the value of its attribute, or why there is none."""
    path = folder / request.file_name
    if not path.is_file():
        return {"heard": MISSING, "pitch_hz": None, "characters_per_second": None}
    seconds = speech_seconds(path)
    facts: dict[str, Any] = {
        "heard": None,
        "pitch_hz": median_pitch(path),
        "characters_per_second": characters_per_second(request.text, seconds) if seconds else None,
    }
    if request.attribute in JUDGED:
        said = words[request.file_name]
        read = read_attributes(said.text)
        facts["heard"] = UNREADABLE if read.values is None else read.values[request.attribute] or UNSAID
        facts |= {"words": said.text, "is_cut": said.is_cut, "repairs": list(read.repairs)}
    return facts


def _add_levels(requests: Sequence[Request], observations: Sequence[dict[str, Any]]) -> None:
    """Gives measured attributes their level: the place of a recording among those of the same text.

    A text of which one recording cannot be measured has no places: its others are unreadable.
    """
    measured = {"pitch": "pitch_hz", "speed": "characters_per_second"}
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for request, one in zip(requests, observations, strict=True):
        if request.attribute in MEASURED:
            groups[request.attribute, request.text_number].append(one)
    for (name, _), group in groups.items():
        values = [one[measured[name]] for one in group]
        # Equal values have no order: to give one of them the lower level would be to guess.
        is_ranked = None not in values and len(set(values)) == len(values)
        for one in group:
            if one["heard"] != MISSING:
                rank = sorted(values).index(one[measured[name]]) if is_ranked else None
                one["heard"] = UNREADABLE if rank is None else CLOSED_VALUES[name][rank]


def _figures(name: str, requests: Sequence[Request], observations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of one attribute."""
    own = [(request, one) for request, one in zip(requests, observations, strict=True) if request.attribute == name]
    values = CLOSED_VALUES[name]
    columns = (*values, UNSAID, UNREADABLE, MISSING)
    confusion = {value: dict.fromkeys(columns, 0) for value in values}
    for request, one in own:
        confusion[request.value][one["heard"]] += 1
    num_right = sum(confusion[value][value] for value in values)
    num_told = sum(confusion[asked][told] for asked in values for told in values)
    return {
        "n_asked": len(own),
        "n_told": num_told,
        "n_right": num_right,
        "accuracy": num_right / len(own),
        "accuracy_of_told": num_right / num_told if num_told else None,
        "chance": 1 / len(values),
        "not_said": sum(row[UNSAID] for row in confusion.values()),
        "unreadable": sum(row[UNREADABLE] for row in confusion.values()),
        "missing": sum(row[MISSING] for row in confusion.values()),
        "cut": sum(one.get("is_cut", False) for _, one in own),
        "repaired": sum(bool(one.get("repairs")) and one["heard"] != UNREADABLE for _, one in own),
        "confusion": confusion,
        "median_pitch_hz": _medians(own, "pitch_hz"),
        "median_characters_per_second": _medians(own, "characters_per_second"),
    }


def _medians(own: Sequence[tuple[Request, Mapping[str, Any]]], measure_name: str) -> dict[str, float | None]:
    """Median of a measurement for each value asked for."""
    by_value: dict[str, list[float]] = {request.value: [] for request, _ in own}
    for request, one in own:
        if one[measure_name] is not None:
            by_value[request.value].append(one[measure_name])
    return {value: median(found) if found else None for value, found in by_value.items()}


def run(config: AttributeControlConfig) -> None:
    """Whether a model speaks with the gender, age, emotion, pitch and speed that it is asked for."""
    result = measure(config)
    if config.json:
        print_json(result, "recordings")
    else:
        show_confusions(result)


def show_confusions(result: Mapping[str, Any]) -> None:
    """Prints a table of confusions for each attribute."""
    console = table_console()
    for name, figures in result["attributes"].items():
        by = result["judge"] if name in JUDGED else "measured, by place among recordings of the same text"
        table = Table(title=f"{name}: {figures['accuracy']:.1%} right, chance {figures['chance']:.1%} ({by})")
        table.add_column("asked for")
        columns = list(next(iter(figures["confusion"].values())))
        for column in columns:
            table.add_column(column, justify="right")
        for value, row in figures["confusion"].items():
            table.add_row(value, *(str(row[column]) for column in columns))
        print_table(table, console)
        if figures["cut"] or figures["repaired"]:
            console.print(
                f"of {figures['n_asked']} answers of the judge, {figures['cut']} were cut by its limit and "
                f"{figures['repaired']} read after repair of their form: see result.json",
                soft_wrap=True,
            )


ACTIONS: Actions = {"run": run}

if __name__ == "__main__":
    run_action(ACTIONS, name="attribute_control")
