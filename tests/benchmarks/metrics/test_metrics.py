from __future__ import annotations

from pathlib import Path

import evaluate
import pytest

from audiollm.benchmarks import metrics
from audiollm.benchmarks.metrics import available_metrics, load_metric

FOLDER = Path(metrics.__file__).parent

METRICS = [
    "accuracy", "clap_score", "fad", "kl", "mcd", "mel_distance", "pesq", "seed_tts_wer", "speaker_similarity", "stoi",
    "wer",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _caches_in_a_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "metrics")


def test_every_metric_of_the_folder_loads_without_a_network():
    assert available_metrics() == METRICS
    for name in available_metrics():
        assert load_metric(name).inputs_description


def test_metrics_do_not_depend_on_the_module_cache(tmp_path, monkeypatch):
    """The copies that evaluate imports are those of the cache it used first: others are not found."""
    pairs = {"predictions": ["a b"], "references": ["a c"]}
    assert evaluate.load(str(FOLDER / "wer"), module_type="metric").compute(**pairs)["wer"] == 0.5
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path / "elsewhere"))
    assert load_metric("wer").compute(**pairs)["wer"] == 0.5
    assert load_metric("accuracy").compute(**pairs)["accuracy"] == 0.0
    assert not (tmp_path / "elsewhere").exists()


def test_an_unknown_metric_names_the_known_ones():
    with pytest.raises(ValueError, match=f"no metric 'bleu'; there are {', '.join(METRICS)}"):
        load_metric("bleu")


def test_word_errors_are_summed_before_dividing():
    scores = load_metric("wer").compute(
        predictions=["a b c d e f g h", "x"], references=["a b c d e f g i", "y z"], normalizer="none"
    )
    # One substitution of 8 words, then one substitution and one deletion of 2: 3 / 10, not (1/8 + 2/2) / 2.
    assert scores["wer"] == pytest.approx(3 / 10)
    assert (scores["substitutions"], scores["deletions"], scores["insertions"], scores["hits"]) == (2, 1, 0, 7)
    assert scores["num_reference_words"] == 10


@pytest.mark.parametrize(("normalizer", "expected"), [("english", 0.0), ("basic", 1 / 4), ("none", 3 / 4)])
def test_normalizers_differ_as_documented(normalizer, expected):
    scores = load_metric("wer").compute(
        predictions=["Hello, the color RED"], references=["hello the colour red"], normalizer=normalizer
    )
    assert scores["wer"] == pytest.approx(expected)


def test_words_for_an_empty_reference_are_insertions_and_add_nothing_to_the_denominator():
    wer = load_metric("wer")
    scores = wer.compute(predictions=["well then", "yes"], references=["", "yes"])
    assert (scores["wer"], scores["insertions"], scores["num_empty_references"]) == (2.0, 2, 1)
    # Only punctuation is empty after normalization; an empty answer to it is right.
    assert wer.compute(predictions=["", "yes"], references=["?!", "yes"])["wer"] == 0.0


def test_without_any_reference_word_there_is_no_rate():
    scores = load_metric("wer").compute(predictions=["noise", ""], references=["", ""])
    assert scores["wer"] is None
    assert scores["insertions"] == 1


def test_an_empty_prediction_deletes_every_word():
    scores = load_metric("wer").compute(predictions=[""], references=["three words here"])
    assert (scores["wer"], scores["deletions"]) == (1.0, 3)


def test_characters_are_counted_without_white_space():
    scores = load_metric("wer").compute(
        predictions=["你 好吗"], references=["你们好吗"], normalizer="basic", unit="character"
    )
    assert (scores["wer"], scores["deletions"], scores["num_reference_words"]) == (0.25, 1, 4)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match=r"normalizer='french'.*english"):
        load_metric("wer").compute(predictions=["a"], references=["a"], normalizer="french")
    with pytest.raises(ValueError, match=r"unit='syllable'.*character"):
        load_metric("wer").compute(predictions=["a"], references=["a"], unit="syllable")
    with pytest.raises(ValueError, match=r"normalizer='english'.*basic"):
        load_metric("accuracy").compute(predictions=["a"], references=["a"], normalizer="english")


def test_accuracy_ignores_case_and_punctuation_only():
    accuracy = load_metric("accuracy")
    scores = accuracy.compute(predictions=["A dog.", " a  DOG", "dogs", ""], references=["a dog"] * 4)
    assert (scores["accuracy"], scores["num_correct"], scores["num_items"]) == (0.5, 2, 4)
    assert accuracy.compute(predictions=["A"], references=["a"], normalizer="none")["accuracy"] == 0.0
