"""The file of a mixture: what it says, and what is refused with file, source and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiollm.data.streaming.shards import open_shards
from audiollm.mixture.config import is_mixture, read_mixture


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.parquet").write_bytes(b"")

    def write(text: str) -> Path:
        (tmp_path / "mix.yaml").write_text(text)
        return tmp_path / "mix.yaml"

    return write


def test_paths_start_from_the_folder_of_the_file_and_sources_keep_their_names(write, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    read = read_mixture(
        write("sources:\n- {data: a.jsonl}\n- {data: shards/*.parquet}\n- {data: owner/set, name: hub}\n")
    )
    assert [Path(source.data) for source in read.sources] == [
        tmp_path / "a.jsonl",
        tmp_path / "shards" / "*.parquet",
        Path("owner/set"),
    ]
    assert [source.title for source in read.sources] == ["a.jsonl", "shards/*.parquet", "hub"]


def test_the_name_of_the_folder_is_no_pattern(tmp_path) -> None:
    folder = tmp_path / "ünï [x]*"
    folder.mkdir()
    (folder / "a.jsonl").write_text("{}\n")
    (folder / "mix.yaml").write_text("sources: [{data: '*.jsonl'}, {data: a.jsonl}]")
    read = read_mixture(folder / "mix.yaml")
    assert [len(open_shards(source.data)) for source in read.sources] == [1, 1]


def test_a_file_that_is_not_there_is_looked_for_beside_the_mixture(write, tmp_path) -> None:
    read = read_mixture(write("sources: [{data: nothing.jsonl}]"))
    assert read.sources[0].data == str(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: [{data: a.jsonl, wieght: 2}]", r"sources\[0\]: 'wieght' is not known; did you mean weight\?"),
        ("sorces: []\nsources: [{data: a.jsonl}]", r"mix\.yaml: 'sorces' is not known; "),
        ("sources: [{data: a.jsonl, weight: 0}]", r"sources\[0\]: weight=0: use a positive number"),
        ("sources: [{data: a.jsonl, weight: -2}]", r"sources\[0\]: weight=-2: use a positive number"),
        ("sources: [{data: a.jsonl, weight: .nan}]", r"weight=nan: use a positive number"),
        ("sources:\n- data: a.jsonl\n  weight: 1\n  weight: 2", r"weight is there twice, in lines 3 and 4; keep one"),
        ("sources: [{data: a.jsonl}]\nsources: [{data: b.jsonl}]", r"sources is there twice, in lines 1 and 2"),
        ("sources: !!python/object:os.system [ls]", r"tags \(tag:yaml\.org,2002:python/object:os\.system\)"),
        ("sources: [{data: a.jsonl, weight: 1.0e+308}, {data: b.jsonl, weight: 1.0e+308}]", r"the weights add up to"),
        ("sources: [{data: a.jsonl, weight: many}]", r"sources\[0\]: weight: many does not fit"),
        ("sources: [{data: a.jsonl, epochs: 0}]", r"epochs=0: use 1 or more"),
        ("sources: [{data: a.jsonl, epochs: 1.5}]", r"epochs: 1\.5 does not fit"),
        ("sources: [{data: a.jsonl, tokens: -5}]", r"tokens=-5: use 1 or more"),
        ("sources: [{data: a.jsonl, tasks: []}]", r"tasks is empty"),
        ("sources: [{data: a.jsonl, tasks: [sing]}]", r"sources\[0\]: task 'sing' is not known; use some of"),
        ("sources: [{data: a.jsonl, tasks: [music]}]", r"task 'music': name the key .* with text_key"),
        ("sources: [{data: a.jsonl, tasks: [speak], text_key: words}]", r"task 'speak' takes no text_key"),
        ("sources: [{data: a.jsonl, weight: 1}, {data: b.jsonl}]", r"source 'b\.jsonl' has no weight"),
        ("temperature: 2\nsources: [{data: a.jsonl, weight: 1}]", r"temperature has no effect beside weights"),
        ("temperature: 0.5\nsources: [{data: a.jsonl}]", r"temperature=0\.5: use 1"),
        ("shuffle: 0\nsources: [{data: a.jsonl}]", r"shuffle=0: use 1 or more"),
        ("on_bad: ignore\nsources: [{data: a.jsonl}]", r"on_bad: ignore does not fit"),
        ("sources: [{data: a.jsonl}, {data: a.jsonl}]", r"two sources are called 'a\.jsonl'"),
        ("sources: []", r"sources is empty"),
        ("sources: [a.jsonl]", r"sources must be a list of sources, each with its data"),
        ("- a.jsonl", r"mix\.yaml holds no settings"),
        ("sources: [", r"mix\.yaml is not valid YAML"),
        ("sources: [{weight: 1}]", r"sources\[0\]: .*required: data"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(write, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_mixture(write(text))
    assert "\n" not in str(caught.value)
    assert "mix.yaml" in str(caught.value)


def test_a_mixture_is_known_by_its_ending() -> None:
    assert is_mixture("a.yaml")
    assert is_mixture(Path("a.yml"))
    assert not any(map(is_mixture, ("a.jsonl", "owner/name", None, [{"messages": []}])))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("weight: ''", "weight: an empty text does not fit; give a number"),
        ("weight: many", "weight: many does not fit; give a number"),
        ("epochs: 1.5", "epochs: 1.5 does not fit; give a whole number"),
        ("tasks: transcribe", r"tasks: transcribe does not fit; give a list, such as \[transcribe\]"),
        ("name: 3", "name: 3 does not fit; give a text"),
        ("tasks: null", "tasks has no value"),
        ("text_key: ''", "text_key is empty"),
    ],
)
def test_what_would_fit_is_told(write, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_mixture(write(f"sources: [{{data: a.jsonl, {source}}}]"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["temperature", "shuffle", "on_bad", "check_records"])
def test_a_setting_without_a_value_is_refused(write, setting: str) -> None:
    with pytest.raises(ValueError, match=f"mix.yaml: {setting} has no value"):
        read_mixture(write(f"{setting}: null\nsources: [{{data: a.jsonl}}]"))


def test_a_source_without_a_path_is_not_the_folder_of_the_file(write) -> None:
    with pytest.raises(ValueError, match="data is empty: give a path"):
        read_mixture(write("sources: [{data: ''}]"))
