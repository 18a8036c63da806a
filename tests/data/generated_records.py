"""Generated recordings and records for tests of whole paths: some legal though odd, most of the others broken."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile

NUM_FILES, SHARE_OF_LEGAL = 400, 0.4
GOOD = "good.wav"
DEEP = "[" * 5000 + "]" * 5000
VALUES = [
    *("null", "true", "-1", "0", "1e400", "NaN", "-Infinity", "9" * 4301, "1" + "0" * 30, DEEP, "{}", "[]", '""'),
    *('"x"', r'"half \ud83d"', r'"a\u0000b"', '"\u2028"', '["a", 1, null]', '{"bytes": "x"}', '{"path": 3}'),
    *(
        '{"array": [0.5, NaN], "sampling_rate": 16000}',
        '{"array": [0.5], "sampling_rate": 1e30}',
        "[1" + "0" * 30 + "]",
    ),
    *('"/proc/self/mem"', '"/dev/zero"', '"/"', '"fifo"', '"missing.wav"', '"' + "x" * 5000 + '"', '"http://x/y.wav"'),
    *(
        '{"path": "good.wav", "offset": "1"}',
        '{"path": "good.wav", "offset": 1e30}',
        '{"path": "good.wav", "offset": 99}',
    ),
    *("[[0.1], [0.2, 0.3]]", '{"codes": [1e3]}', '{"codes": [-1]}', '["good.wav"]'),
]


# What records may hold though few do: the run takes them, and nothing of it is lost on the way.
ODD_TEXTS = [
    *(
        "",
        " ",
        "\u2028 and \u2029",
        "\ufeff",
        "a\u0000b",
        "\t\r\n",
        "🌧️👩‍👩‍👧",
        "ﷺ",
        "e\u0301",
        "\u202eright to left",
        "x" * 20_000,
    ),
    *("<audio>", "<|im_end|>", "NaN", "\\x41", '"quoted"', "\U0010ffff", "\x85", "ＡＢＣ", "--skip-bad"),
]
ODD_KEYS = ["", " ", "\u2028", "ключ", "🌧", "a.b[0]", "__class__", "ID", "$ref", "x" * 300, "nested key"]


def legal_value(draw: random.Random, depth: int = 0) -> object:
    """Any value of JSON, at most 60 levels deep."""
    kind = draw.randrange(8)
    if kind == 0 and depth < 60:
        return [legal_value(draw, depth + 1) for _ in range(draw.randrange(3))]
    if kind == 1 and depth < 60:
        return {draw.choice(ODD_KEYS): legal_value(draw, depth + 1) for _ in range(draw.randrange(3))}
    if kind == 2:
        value: object = draw.choice(ODD_TEXTS)
        for level in range(draw.randrange(60 - depth)):
            value = [value] if level % 2 else {"in": value}
        return value
    return draw.choice([None, True, False, 0, -1, 2**63, -(2**70), 1e-320, 1.5, *ODD_TEXTS])


def legal_audio(name: str, draw: random.Random) -> object:
    """A value of ``audio`` that is one recording, or a part of it."""
    samples = [draw.uniform(-1, 1) for _ in range(draw.randrange(1, 50))]
    segment = draw.choice([{"offset": 0.01}, {"duration": 0.02}, {"offset": 0, "duration": 0.05}, {"offset": None}])
    return draw.choice(
        [
            name, f"./{name}", f"file://{name}", {"path": name}, {"path": name, **segment},
            {"path": name, "bytes": None, "array": None}, {"array": samples, "sampling_rate": 16_000},
            {"array": [samples, samples], "sampling_rate": draw.choice([4000, 8000, 48_000])},
        ]
    )  # fmt: skip


def legal_clip(names: list[str], draw: random.Random) -> object:
    name = draw.choice(names)
    if draw.random() < 0.1:
        return name
    record = {
        "id": legal_value(draw),
        draw.choice(ODD_KEYS): legal_value(draw),
        "codes": draw.choice([None, [1, 2], "x"]),
    }
    if draw.random() < 0.3:
        return {**record, "audio_filepath": name, "duration": 0.02, "offset": draw.choice([0, 0.01, None])}
    return {**record, "audio": legal_audio(name, draw), "text": draw.choice(ODD_TEXTS), "audio_tokenizer": "other"}


def legal_conversation(names: list[str], draw: random.Random) -> object:
    """Several recordings, codes beside them, every role, and what nothing reads."""

    def part() -> dict[str, object]:
        codes = {"type": "audio", "codes": [draw.randrange(64) for _ in range(draw.randrange(1, 40))]}
        heard = {"type": "audio", "audio": legal_audio(draw.choice(names), draw)}
        return draw.choice([{"type": "text", "text": draw.choice(ODD_TEXTS) + "?"}, codes, heard, heard])

    if draw.random() < 0.2:
        audios = [legal_audio(draw.choice(names), draw) for _ in range(draw.randrange(1, 4))]
        user: object = "<audio> and ".join([""] * len(audios)) + "<audio>?"
        record: dict[str, object] = {"audios": audios}
    else:
        user, record = [part() for _ in range(draw.randrange(1, 5))], {}
    call = {"type": "function", "function": {"name": "f", "arguments": legal_value(draw)}}
    messages = [
        *([{"role": "system", "content": draw.choice(ODD_TEXTS)}] if draw.random() < 0.5 else []),
        {"role": "user", "content": user, "name": None},
        {"role": "assistant", "content": "Yes.", "tool_calls": draw.choice([None, [call], []])},
        *([{"role": "tool", "content": draw.choice(ODD_TEXTS), "tool_call_id": "1"}] if draw.random() < 0.3 else []),
    ]
    odd = {"id": draw.choice([0, -1, "", "🌧", 2**70]), draw.choice(ODD_KEYS): legal_value(draw)}
    return {**odd, **record, "messages": messages, "task": draw.choice([None, "", "ask"])}


def write_files(folder: Path, draw: random.Random) -> list[str]:
    names = []
    for number in range(NUM_FILES):
        rate = draw.choice([1, 999, 4000, 8000, 16_000, 44_100, 192_000, 768_001, 655_350])
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, (draw.choice([1, 50, 4000]), draw.choice([1, 2, 8])))
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format=draw.choice(["WAV", "AIFF", "W64", "AU", "CAF"]))
        content = bytearray(file.getvalue())
        for _ in range(draw.choice([0, 0, 1, 3, 20])):
            content[draw.randrange(min(len(content), 200))] = draw.randrange(256)
        if draw.random() < 0.2:
            content = content[: draw.randrange(len(content))]
        name = f"{number}.wav"
        (folder / name).write_bytes(content)
        names.append(name)
    return names


def write_good_files(folder: Path) -> list[str]:
    """Short recordings that are read whole, in files of odd names."""
    names = ["wörter und töne.wav", "🌧.flac", "two.channels.wav", "a b\u2028c.ogg", "low.aiff"]
    rates = [16_000, 48_000, 44_100, 8000, 4000]
    for name, rate in zip(names, rates, strict=True):
        samples = np.random.default_rng(rate).uniform(-0.5, 0.5, (rate // 8, 2 if "two" in name else 1))
        soundfile.write(folder / name, samples, rate)
    return names


def clip_line(name: str, draw: random.Random) -> str:
    fields = {"id": f'"{draw.random()}"', "audio": json.dumps(name), "text": '"said"', "sap": "{}"}
    if draw.random() < 0.5:
        key = draw.choice([*fields, "codes", "offset", "duration", "path", "speaker_vector", "messages", "label"])
        fields[key] = draw.choice(VALUES)
    return "{" + ", ".join(f'"{key}": {value}' for key, value in fields.items()) + "}"


def conversation_line(name: str, draw: random.Random) -> str:
    part = {"type": '"audio"', "path": json.dumps(name)}
    text = {"type": '"text"', "text": '"What is this?"'}
    record = {"id": f'"{draw.random()}"', "task": '"ask"', "tools": "null"}
    target = draw.choice([part, text, record, {}, {}])
    if target:
        target[draw.choice([*target, "offset", "role", "audios", "audio"])] = draw.choice(VALUES)
    shown = [("{" + ", ".join(f'"{key}": {value}' for key, value in one.items()) + "}") for one in (part, text)]
    answer = '{"role": "assistant", "content": ' + (draw.choice(VALUES) if draw.random() < 0.1 else '"A tone."') + "}"
    messages = f'[{{"role": "user", "content": [{", ".join(shown)}]}}, {answer}]'
    return "{" + ", ".join(f'"{key}": {value}' for key, value in {**record, "messages": messages}.items()) + "}"


def mutated(line: str, draw: random.Random) -> bytes:
    content = bytearray(line.encode())
    kind = draw.random()
    if kind < 0.1:
        content = content[: draw.randrange(1, len(content))]
    elif kind < 0.25:
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(len(content))] = draw.choice([0, 0xFF, 0x22, 0x5B, 0x7B, 0xC4, draw.randrange(256)])
    elif kind < 0.3:
        content[:0] = b"\xef\xbb\xbf"
    return bytes(content).replace(b"\n", b" ")


def write_corpus(
    folder: Path,
    odd: Sequence[Callable[[str, random.Random], str]],
    legal: Sequence[Callable[[list[str], random.Random], object]],
    num_records: int,
    draw: random.Random,
) -> tuple[Path, int]:
    """Writes recordings and ``corpus.jsonl``; returns the path and how many records it holds."""
    soundfile.write(folder / GOOD, np.random.default_rng(0).uniform(-0.5, 0.5, 4000), 16_000)
    os.mkfifo(folder / "fifo")
    names = [GOOD, *write_files(folder, draw)]
    good = [GOOD, *write_good_files(folder)]
    lines = []
    for _ in range(num_records):
        if draw.random() < SHARE_OF_LEGAL:
            record = draw.choice(legal)(good, draw)
            lines.append(json.dumps(record, ensure_ascii=draw.random() < 0.5).encode())
        else:
            lines.append(mutated(draw.choice(odd)(draw.choice(names), draw), draw))
    path = folder / "corpus.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path, sum(bool(line.strip()) for line in lines)


def numbers_of_lines(path: Path) -> list[int]:
    """The line of each record, from 1."""
    return [number for number, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
