"""The file of a study: what is wrong in it is named with its place, before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from audiollm.benchmarks.comparison.floors import MuLawSettings
from audiollm.benchmarks.comparison.study import KMeansSettings, ReconstructionSettings, read_study

GOOD = {
    "tokenizers": {"mini": "mini", "floor": {"mulaw": None}},
    "data": {"speech": {"path": "sample", "split": "test"}},
    "measures": {"codes": "speech"},
}


def read(folder: Path, content: object) -> object:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_study(path)


def test_a_short_file_means_the_usual_settings(tmp_path: Path) -> None:
    study = read(tmp_path, GOOD | {"measures": {"reconstruction": "speech", "codes": ["speech"]}})
    assert study.tokenizers == {"mini": "mini", "floor": MuLawSettings()}
    assert study.measures["reconstruction"] == ReconstructionSettings(data=("speech",))
    assert [(measure, data) for measure, data, _ in study.parts()] == [
        ("reconstruction", "speech"),
        ("codes", "speech"),
    ]


def test_paths_start_from_the_folder_of_the_file_and_names_stay(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    tokenizers = {"a": "mine", "b": "owner/name", "c": {"kmeans": {"whisper": "mine"}}}
    study = read(tmp_path, GOOD | {"tokenizers": tokenizers})
    assert study.tokenizers["a"] == str(tmp_path / "mine")
    assert study.tokenizers["b"] == "owner/name"
    assert study.tokenizers["c"] == KMeansSettings(whisper=str(tmp_path / "mine"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenisers": {}}, r"'tokenisers' is not known; did you mean tokenizers\?"),
        ({"tokenizers": {}}, "tokenizers is empty"),
        ({"tokenizers": {"x": {"kmean": {}}}}, r"tokenizers\.x: 'kmean' is not known; did you mean kmeans"),
        ({"tokenizers": {"x": {"mulaw": {"rate": 1}}}}, r"tokenizers\.x\.mulaw: 'rate' is not known"),
        ({"tokenizers": {"x": {"opus": {"kbps": 5}}}}, r"tokenizers\.x\.opus: kbps=5: use 6 to 64"),
        ({"tokenizers": {"a/b": "mini"}}, "'a/b' cannot be a name"),
        ({"tokenizers": {"original": "mini"}}, "'original' cannot be a name"),
        ({"tokenizers": {"x": {"kmeans": {"whisper": "w", "data": "spech"}}}}, r"no 'spech' in the file; did you mean"),
        ({"data": {"speech": {"path": "sample", "max_clips": 0}}}, r"data\.speech: max_clips=0"),
        ({"data": {"speech": {"path": "sample", "clips": 1}}}, r"data\.speech: 'clips' is not known"),
        ({"measures": {}}, "measures is empty"),
        ({"measures": {"codez": "speech"}}, r"measures\.codez: no such measure; did you mean codes"),
        ({"measures": {"codes": "sound"}}, r"measures\.codes: there is no 'sound' in the file"),
        ({"measures": {"codes": []}}, r"measures\.codes: data=\[\]: name one"),
        ({"measures": {"reconstruction": {"data": "speech", "metrics": ["loud"]}}}, "no metric 'loud'"),
        ({"measures": {"stability": {"data": "speech", "conditions": ["fog"]}}}, "'fog' is unknown"),
        ({"measures": {"stability": {"data": "speech", "conditions": ["bfloat16"]}}}, "bfloat16 is about one kind"),
        ({"measures": {"speed": {"data": "speech", "rounds": "many"}}}, r"measures\.speed: rounds: many does not fit"),
        ({"downstream": {"seeds": [0]}}, r"downstream: nothing is trained"),
        ({"downstream": {"seeds": [0, 0], "speech": {"train_data": "x"}}}, r"seeds=\[0, 0\]"),
        ({"downstream": {"understanding": {"steps": 3}}}, r"downstream\.understanding: 'steps' is not known"),
        ({"downstream": {"tokenizers": ["floor"], "speech": {"train_data": "x"}}}, "floor without a checkpoint"),
        (
            {"downstream": {"tokenizers": ["min"], "speech": {"train_data": "x"}}},
            "no 'min' in the file; did you mean mini",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, GOOD | change)


def test_a_study_adds_to_the_one_that_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base" / "mine").mkdir(parents=True)
    (tmp_path / "own").mkdir()
    downstream = {"seeds": [0], "speech": {"train_data": "sample"}}
    base = GOOD | {"title": "Base", "tokenizers": GOOD["tokenizers"] | {"a": "mine"}, "downstream": downstream}
    (tmp_path / "base" / "base.yaml").write_text(yaml.safe_dump(base, sort_keys=False))
    before = read_study(tmp_path / "base" / "base.yaml")

    own = {
        "extends": "../base/base.yaml",
        "tokenizers": {"mini": "owner/other", "b": {"mulaw": None}},
        "measures": {"classes": "speech"},
    }
    study = read(tmp_path / "own", own)
    # Each path is of the folder of its own file, and what is named again takes the place of the first.
    assert study.tokenizers == {
        "mini": "owner/other",
        "floor": MuLawSettings(),
        "a": str(tmp_path / "base" / "mine"),
        "b": MuLawSettings(),
    }
    assert list(study.measures) == ["codes", "classes"]
    assert (study.title, study.data, study.downstream) == ("Base", before.data, before.downstream)
    assert read(tmp_path / "own", own | {"downstream": None}).downstream is None


def test_a_study_that_extends_nothing_that_is_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"study\.yaml: extends study\.yaml, which extends it in turn"):
        read(tmp_path, GOOD | {"extends": "study.yaml"})
    with pytest.raises(FileNotFoundError, match=r"study\.yaml: extends smal\.yaml, and there is no such file"):
        read(tmp_path, GOOD | {"extends": "smal.yaml"})
    with pytest.raises(ValueError, match=r"extends is \['a'\]; name the file"):
        read(tmp_path, GOOD | {"extends": ["a"]})


def test_the_study_that_ships_is_one() -> None:
    folder = Path(read_study.__code__.co_filename).parent / "studies"
    for path in folder.glob("*.yaml"):
        assert read_study(path).measures
