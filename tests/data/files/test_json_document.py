"""A file of one JSON value."""

import pytest

from audiollm.data.files.json_document import json_text, write_json


def test_a_value_is_written_as_wished_and_nothing_that_is_no_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": ["ü"]})
    assert path.read_text(encoding="utf-8") == '{\n  "a": [\n    "ü"\n  ]\n}\n'
    write_json(path, {"a": "ü\ud83d"}, indent=1, ensure_ascii=True)
    assert path.read_text() == '{\n "a": "\\u00fc\\ud83d"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert json_text({}) == "{}"
