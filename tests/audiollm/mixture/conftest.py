"""A processor of 64 codes, and sources written beside a mixture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from audiollm.processing import AudioLLMProcessor
from audiollm.vocabulary import extend

SAP = {
    "linguistic_content": "it rains",
    "vocal_attributes": {"gender": "female", "emotion": "sadness"},
    "auditory_scenes": {"summary": "rain on a roof", "events": [{"class": "rain", "type": "persistent"}]},
}


@pytest.fixture
def processor(text_tokenizer, make_llm, audio_tokenizer) -> AudioLLMProcessor:
    extend(make_llm(), text_tokenizer, audio_tokenizer.codebook_size)
    return AudioLLMProcessor(text_tokenizer, audio_tokenizer=audio_tokenizer)


@pytest.fixture
def mixture(tmp_path: Path):
    """Writes records of each source, and a mixture of them with more settings; returns its file."""

    def write(sources: dict[str, tuple[list[Any], dict[str, Any]]], **settings: Any) -> Path:
        listed = []
        for name, (records, options) in sources.items():
            lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
            (tmp_path / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
            listed.append({"data": f"{name}.jsonl", "name": name, **options})
        (tmp_path / "mix.yaml").write_text(yaml.safe_dump({"sources": listed, **settings}))
        return tmp_path / "mix.yaml"

    return write


def clip(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"clip-{number}", "codes": [number % 64, 1, 2], "text": f"words {number}", "sap": SAP, **fields}
