"""``audiollm bench`` scores spoken texts and codes from files."""

import json
from pathlib import Path

import pytest

from audiollm.cli import main

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden"


def test_bench_seed_tts_wer_writes_the_published_figure(tmp_path, capsys):
    pairs, output = GOLDEN / "seed_tts_wer" / "en.json", tmp_path / "new" / "out.json"
    main(["bench", "seed-tts", "wer", "--pairs", str(pairs), "--language", "en", "--output", str(output)])
    result = json.loads(output.read_text(encoding="utf-8"))
    expected = json.loads(pairs.read_text(encoding="utf-8"))
    assert result["averaged"]["printed"] == expected["averaged"]["printed"]
    assert [item["id"] for item in result["items"]] == [row["id"] for row in expected["rows"]]
    assert expected["averaged"]["printed"] in capsys.readouterr().out


def test_bench_seed_tts_sim_prints_mean_and_variance(capsys):
    main(["bench", "seed-tts", "sim", "--pairs", str(GOLDEN / "seed_tts_sim" / "pairs.json"), "--json"])
    assert json.loads(capsys.readouterr().out)["printed"] == ["ASV: 0.449", "ASV-var: 0.174"]


def test_bench_clustering_scores_every_case_of_a_file(tmp_path):
    codes, output = GOLDEN / "esc_clustering" / "cases.json", tmp_path / "out.json"
    main(["bench", "clustering", "--codes", str(codes), "--num-seeds", "1", "--output", str(output)])
    cases = json.loads(output.read_text(encoding="utf-8"))["cases"]
    assert [case["case"] for case in cases] == [case["case"] for case in json.loads(codes.read_bytes())["cases"]]


def test_missing_file_ends_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["bench", "seed-tts", "wer", "--pairs", str(tmp_path / "no.jsonl"), "--language", "en"])
    assert "no.jsonl" in capsys.readouterr().err
