"""Scores of spoken texts and voices are those of the published scorer."""

import json
from pathlib import Path

import pytest

from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.metrics.seed_tts_wer.pairs import TextPair, read_pairs, score_pairs
from audiollm.benchmarks.metrics.seed_tts_wer.text import HANZI_PUNCTUATION, normalise

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden"
TOLERANCE = 1e-9


def golden(language):
    if language == "zh":
        pytest.importorskip("zhconv")
    path = GOLDEN / "seed_tts_wer" / f"{language}.json"
    return json.loads(path.read_text(encoding="utf-8")), score_pairs(read_pairs(path), language)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_utterance_has_the_published_rate_and_texts(language):
    expected, result = golden(language)
    for wanted, row in zip(expected["rows"], result["rows"], strict=True):
        for name, value in wanted.items():
            if name == "edge":
                continue
            same = row[name] == (pytest.approx(value, abs=TOLERANCE) if isinstance(value, float) else value)
            assert same, f"{wanted['edge']}: {name} is {row[name]!r}, published {value!r}"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_published_average_and_corpus_rate_are_reproduced(language):
    expected, result = golden(language)
    for name, value in expected["averaged"].items():
        assert result["averaged"][name] == (pytest.approx(value, abs=TOLERANCE) if isinstance(value, float) else value)
    expected["corpus_level"].pop("note")
    assert result["corpus_level"] == pytest.approx(expected["corpus_level"], abs=TOLERANCE)


def test_utterances_that_the_published_average_cannot_read_are_named_and_still_count_in_ours():
    result = score_pairs([TextPair("a", "one\ttwo", "one two"), TextPair("b", "one", "one")], "en")
    assert result["averaged"]["left_out"] == ["a"]
    assert result["averaged"]["mean_wer"] == 0
    assert result["wer"] == 0
    assert result["wer_of_all"] == 0.5


def test_a_reference_without_words_has_no_rate_and_is_counted():
    result = score_pairs([TextPair("a", "hello", "..."), TextPair("b", "one", "one")], "en")
    assert [item["wer"] for item in result["items"]] == [None, 0]
    assert result["num_empty_references"] == 1
    assert result["wer"] == 0
    assert score_pairs([TextPair("a", "hello", "")], "en")["averaged"]["printed"] is None


def test_the_characters_removed_are_those_of_zhon():
    assert len(set(HANZI_PUNCTUATION)) == 82
    zhon = pytest.importorskip("zhon.hanzi")
    assert zhon.punctuation == HANZI_PUNCTUATION


def test_two_spaces_become_one_and_what_that_leaves_stays():
    assert normalise("a    b", "en") == "a  b"


def test_jsonl_a_list_and_the_golden_layout_read_alike(tmp_path):
    rows = [{"id": "a", "hypothesis": "x\u2028y", "reference": "x"}, {"id": "b", "hypothesis": "", "reference": "z"}]
    layouts = {
        "list.json": json.dumps(rows),
        "rows.json": json.dumps({"rows": rows}),
        "lines.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n",
    }
    for name, text in layouts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_pairs(tmp_path / name) == [TextPair("a", "x\u2028y", "x"), TextPair("b", "", "z")], name


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"id": "a", "hypothesis": "x", "reference": "x"}\n{"id": "b", "hyp', r"pairs\.jsonl: line 2 is not JSON"),
        ('{"id": "a", "hypothesis": null, "reference": "x"}', "hypothesis is None"),
        ('{"id": "a", "hypothesis": ["x"], "reference": "x"}', r"hypothesis is \['x'\]"),
        ('{"id": "a", "hypothesis": "x"}', "reference is missing"),
        ('{"id": null, "hypothesis": "x", "reference": "x"}', "id is None"),
        ('{"id": 1, "hypothesis": "x", "reference": "x"}\n{"id": "1", "hypothesis": "x", "reference": "x"}', "twice"),
        ("[1]", "row 0 is a int"),
        ("", "holds no pairs"),
        ("3", "holds a int"),
    ],
)
def test_bad_pairs_are_refused_by_place_and_field(tmp_path, lines, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_pairs(path)


def test_metric_gives_the_mean_over_utterances():
    result = load_metric("seed_tts_wer").compute(predictions=["a b c", "x"], references=["a b", "x"])
    assert result["seed_tts_wer"] == 0.25
    assert result["scores"] == [0.5, 0]
    assert result["corpus_wer"] == pytest.approx(1 / 3)


def test_another_language_is_refused():
    with pytest.raises(ValueError, match=r"'fr'.*en and zh"):
        normalise("a", "fr")


def test_speaker_similarity_is_the_published_one():
    expected = json.loads((GOLDEN / "seed_tts_sim" / "pairs.json").read_text(encoding="utf-8"))
    result = load_metric("speaker_similarity").compute(
        predictions=[pair["synthesised"] for pair in expected["pairs"]],
        references=[pair["prompt"] for pair in expected["pairs"]],
    )
    assert result["scores"] == pytest.approx([pair["similarity"] for pair in expected["pairs"]], abs=1e-6)
    assert result["speaker_similarity"] == pytest.approx(expected["mean"], abs=1e-6)
    assert result["variance"] == pytest.approx(expected["variance"], abs=1e-6)
    assert result["printed"] == expected["printed"]


def test_speaker_vectors_of_different_sizes_are_refused_by_pair():
    with pytest.raises(ValueError, match="pair 1"):
        load_metric("speaker_similarity").compute(predictions=[[1.0, 0], [1.0]], references=[[1.0, 0], [1.0, 0]])
