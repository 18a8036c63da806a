"""Files of code sequences are clustered as the published readings do, and bad ones are refused by place."""

import json
from pathlib import Path

import pytest

from audiollm.benchmarks.clustering import ClusteringConfig, cluster_file
from audiollm.benchmarks.codes.files import measure_codes, read_labelled_codes

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden" / "esc_clustering" / "cases.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]
TOLERANCE = 1e-9


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case["case"] for case in CASES])
def test_every_reading_of_a_golden_case_is_reproduced(number):
    case = CASES[number]
    result = measure_codes(read_labelled_codes(GOLDEN)[number])
    for name, value in case["silhouette_with_class_labels"].items():
        wanted = None if value is None else pytest.approx(value, abs=TOLERANCE)
        assert result["silhouette_with_class_labels"][name] == wanted, name
    assert result["purity_of_given_clusters"] == case["purity_of_given_clusters"]
    if "kmeans_l1_euclidean" not in case:
        assert "1 classes" in result["problem"]
        assert result["purity"] is None
        return
    assert result["silhouette_per_clip_l1_euclidean"] == pytest.approx(
        case["silhouette_per_clip_l1_euclidean"], abs=TOLERANCE
    )
    wanted, found = case["kmeans_l1_euclidean"], result["kmeans_l1_euclidean"]
    assert wanted["purity_min"] <= found["purity_min"] <= found["purity_max"] <= wanted["purity_max"]
    assert wanted["nmi_min"] - TOLERANCE <= found["nmi_min"] <= found["nmi_max"] <= wanted["nmi_max"] + TOLERANCE
    assert [value is None for value in found["silhouette_with_cluster_labels"]] == [
        value is None for value in wanted["silhouette_with_cluster_labels"]
    ]


def test_one_case_and_one_clip_a_line_give_the_same_figures(tmp_path):
    case = CASES[0]
    (tmp_path / "case.json").write_text(json.dumps(case), encoding="utf-8")
    lines = [
        json.dumps({"codes": codes, "label": label})
        for codes, label in zip(case["tokens"], case["labels"], strict=True)
    ]
    (tmp_path / "clips.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole, by_line = (
        cluster_file(ClusteringConfig(codes=str(tmp_path / name), num_seeds=2)) for name in ("case.json", "clips.jsonl")
    )
    assert whole["silhouette"] == pytest.approx(case["silhouette_with_class_labels"]["l1/euclidean"], abs=TOLERANCE)
    for name in ("silhouette", "purity", "nmi"):
        assert by_line[name] == pytest.approx(whole[name], abs=TOLERANCE), name
    assert by_line["codebook_size"] == max(map(max, case["tokens"])) + 1


def test_clips_of_several_codebooks_are_read(tmp_path):
    path = tmp_path / "clips.jsonl"
    rows = [{"codes": [[0, 1], [2, 2]], "label": "a"}, {"codes": [[0, 0], [2, 2]], "label": "a"}]
    rows += [{"codes": [[3, 3], [0, 0]], "label": "b"}, {"codes": [], "label": "b"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    [clips] = read_labelled_codes(path)
    assert (clips.num_codebooks, clips.codebook_size) == (2, 4)
    assert measure_codes(clips, num_seeds=1)["n_classes"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"codes": [1], "label": "a"}\n{"codes": [1', r"clips\.jsonl: line 2 is not JSON"),
        ('{"codes": [1], "label": "a"}\n{"codes": [1]}', r"clips\.jsonl:2: label is None"),
        ('{"codes": [1.5], "label": "a"}\n{"codes": [1], "label": "a"}', r":1: codes hold \[1\.5\]"),
        ('{"codes": [-1], "label": "a"}\n{"codes": [1], "label": "a"}', r":1: codes hold \[-1\]"),
        ('{"codes": "12", "label": "a"}\n{"codes": [1], "label": "a"}', ":1: codes are '12'"),
        ('{"codes": [[1], [1, 2]], "label": "a"}\n{"codes": [1], "label": "a"}', r"codebooks have \[1, 2\]"),
        ('{"tokens": [[1], [2]], "labels": [0]}', "2 clips and 1 labels"),
        ('{"tokens": [[1], [2]], "labels": [0, null]}', "a label is None"),
        ('{"tokens": 3, "labels": [0]}', "tokens is 3"),
        ("[]", "holds no clips"),
        ("7", "holds a int"),
    ],
)
def test_bad_files_are_refused_by_place_and_field(tmp_path, text, message):
    path = tmp_path / "clips.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_labelled_codes(path)


def test_codes_beyond_the_codebook_are_refused(tmp_path):
    path = tmp_path / "clips.json"
    path.write_text('{"tokens": [[1], [9], [1]], "labels": [0, 1, 1]}', encoding="utf-8")
    with pytest.raises(ValueError, match="codes from 9 to 9; a codebook of 5"):
        cluster_file(ClusteringConfig(codes=str(path), codebook_size=5))


def test_codes_of_different_tokenizers_are_not_measured_together(tmp_path):
    path = tmp_path / "codes.jsonl"
    rows = [{"codes": [1, 2], "label": "a", "audio_tokenizer": f"sha256:{made_by * 64}"} for made_by in "aab"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(ValueError, match=r"codes\.jsonl:3: its codes are of tokenizer sha256:b.*:1 of sha256:a"):
        read_labelled_codes(path, label_key="label")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]), encoding="utf-8")
    assert len(read_labelled_codes(path, label_key="label")[0].codes) == 2
