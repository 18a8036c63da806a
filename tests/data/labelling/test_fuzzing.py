"""Labelling generated clips: each is labelled or refused with file, line and reason, and none stops the run."""

from __future__ import annotations

import json
import random
import re

from audiollm.data.chat.base import ChatModel, ChatReply
from audiollm.data.labelling.by_models import label_corpus
from audiollm.data.labelling.models import ModelLabeller, ModelLabelling
from tests.data.generated_records import clip_line, legal_clip, legal_value, numbers_of_lines, write_corpus

NUM_RECORDS = 1200
VOICE = {"age": "adult", "gender": "male", "emotion": "neutral"}


class Echo(ChatModel):
    """Writes the record that the request asks for: its transcript and one sound."""

    name = "echo"

    def ask(self, messages, *, max_tokens, temperature=0.0, seed=None):
        transcript = messages[1].text.split("Transcript: ")[1].split("\n")[0]
        words = None if transcript == "(none)" else transcript
        scene = {"summary": "A tone.", "events": [{"class": "tone", "type": "transient", "attributes": None}]}
        record = {"linguistic_content": words, "vocal_attributes": VOICE if words else None, "auditory_scenes": scene}
        return ChatReply(json.dumps(record), 1, 1)


def captioned(names: list[str], draw: random.Random) -> object:
    record = legal_clip(names, draw)
    if not isinstance(record, dict):
        return record
    key = draw.choice(["caption", "label", "gender", "age", "attributes", "paralinguistics", "sound_type", "language"])
    return {**record, "caption": "A tone.", key: legal_value(draw)}


def captioned_line(name: str, draw: random.Random) -> str:
    return clip_line(name, draw).replace("{", '{"caption": "A tone.", ', 1)


def test_every_clip_is_labelled_or_refused(tmp_path):
    path, num_records = write_corpus(tmp_path, [captioned_line], [captioned], NUM_RECORDS, random.Random(3))
    output = tmp_path / "labels.jsonl"
    labeller = ModelLabeller(Echo(), settings=ModelLabelling(max_asks=1))
    done = label_corpus(path, output, labeller, progress=False, concurrency=2).records
    assert done == len(output.read_bytes().splitlines())
    rejected = [json.loads(line) for line in (tmp_path / f"{output.name}.rejected.jsonl").read_bytes().splitlines()]
    assert done + len(rejected) == num_records
    assert min(done, len(rejected)) > 0.2 * num_records
    lines_of = numbers_of_lines(path)
    for entry in rejected:
        assert re.match(rf"{re.escape(str(path))}:{lines_of[entry['index']]}\b", entry["source"]), entry
        assert entry["reason"]
