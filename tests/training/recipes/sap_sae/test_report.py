"""What the report of the experiment makes of given figures: means, spreads, verdicts, tables, pictures, page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audiollm.training.recipes.sap_sae.report import (
    BEGIN,
    END,
    SapSaeReportConfig,
    fill_page,
    results_tables,
    write_page,
)
from audiollm.training.recipes.sap_sae.summary import (
    AS_CLAIMED,
    OPPOSITE,
    PURITY,
    UNKNOWN,
    WER,
    WITHIN_SPREAD,
    Metric,
    Spread,
    find_claims,
    show_spread,
    spread_of,
)

PAGE = Path(__file__).resolve().parents[4] / "docs" / "experiments" / "sap_sae.md"


def figures(purity: float, *, gates: bool = False, sap: bool = False, wer: float | None = 0.5) -> dict[str, Any]:
    probes = {
        view: {
            **{f"{reader}_accuracy": 0.4 for reader in ("linear", "logistic", "knn")},
            **{f"{reader}_balanced_accuracy": 0.3 for reader in ("linear", "logistic", "knn")},
            "majority_accuracy": 0.1,
        }
        for view in ("histogram", "entries", "features")
    }
    return {
        "clustering": {"silhouette": purity - 0.5, "purity_mean": purity, "purity_of_chance": 0.2, "nmi_mean": 0.5},
        "sound_class_probes": probes,
        "sound_type_probes": probes,
        "codes": {"usage": 0.9, "perplexity": 512.3, "quantization_error": 0.4},
        "gates": {
            "by_kind": {"speech": 0.3, "music": 0.3 + purity / 10, "white noise": 0.5},
            "by_snr_db": {"-10": 0.5, "20": 0.4, "5": 0.45},
        } if gates else None,
        "wer": wer,
        "wer_continuous": None,
        "sap": {"valid_json": 0.8, "readable": 0.9, "wer": 0.6, "event_f1": 0.3} if sap else None,
        "training": {"stage1": {"seconds": 100.0}, "stage2": {"seconds": 140.0}},
    }  # fmt: skip


PURITIES = {"asr": (0.30, 0.32), "asr+sae": (0.34, 0.30), "sap": (0.40, 0.44), "sap+sae": (0.44, 0.42)}


@pytest.fixture
def results() -> dict[str, Any]:
    runs: dict[str, Any] = {"untrained": {"0": figures(0.25, wer=None)}}
    for variant, purities in PURITIES.items():
        runs[variant] = {
            str(seed): figures(purity, gates="+sae" in variant, sap="sap" in variant)
            for seed, purity in enumerate(purities)
        }
    settings = {"stage1_steps": 100, "stage2_steps": 120, "start_from": "whisper-tiny.en", "codebook_size": 1024}
    return {
        "settings": settings | {"quantize_position": 2},
        "data": {"train": {"clips": 10, "minutes": 1.5, "by_sound_type": {"sound": 6, "speech": 4}}},
        "machine": {"cores": 2, "gpu": None, "processor": "a processor", "versions": {"torch": "2.13.0"}},
        "date": "2026-11-21",
        "runs": runs,
    }


def test_effects_are_means_of_paired_differences(results: dict[str, Any]) -> None:
    claims = {claim.text: claim for claim in find_claims(results["runs"])}
    sap = claims["SAP raises the purity of sound classes"]
    # Seed 0: (0.40 - 0.30 + 0.44 - 0.34) / 2, seed 1: (0.44 - 0.32 + 0.42 - 0.30) / 2.
    assert (sap.effect.mean, sap.effect.num_seeds) == (pytest.approx(0.11), 2)
    assert sap.effect.deviation == pytest.approx(0.02 / 2**0.5)
    assert sap.verdict == AS_CLAIMED
    assert sap.num_agreeing == 2
    sae = claims["SAE raises the purity of sound classes"]
    # Seed 0: (0.04 + 0.04) / 2, seed 1: (-0.02 - 0.02) / 2.
    assert sae.effect.mean == pytest.approx(0.01)
    assert sae.verdict == WITHIN_SPREAD
    assert sae.num_agreeing == 1
    assert claims["The gate opens more on music than on speech (sap+sae)"].effect.mean == pytest.approx(0.043)
    assert claims["The gate opens as music drowns speech (asr+sae)"].effect.mean == pytest.approx(0.1)


def test_what_contradicts_the_paper_is_said(results: dict[str, Any]) -> None:
    runs = results["runs"]
    runs["asr"], runs["sap"] = runs["sap"], runs["asr"]
    runs["asr+sae"], runs["sap+sae"] = runs["sap+sae"], runs["asr+sae"]
    claims = {claim.text: claim for claim in find_claims(runs)}
    assert claims["SAP raises the purity of sound classes"].verdict == OPPOSITE
    assert f"| {OPPOSITE} |" in results_tables(results)


def test_one_seed_has_no_spread_and_no_verdict(results: dict[str, Any]) -> None:
    runs = {variant: {"0": own["0"]} for variant, own in results["runs"].items()}
    assert {claim.verdict for claim in find_claims(runs)} == {UNKNOWN}


def test_a_seed_that_lacks_a_variant_is_left_out_of_the_pairs(results: dict[str, Any]) -> None:
    del results["runs"]["sap"]["1"]
    claims = {claim.text: claim for claim in find_claims(results["runs"])}
    assert claims["SAP raises the purity of sound classes"].effect == Spread(pytest.approx(0.10), None, 1)
    del results["runs"]["asr"]
    assert not [claim for claim in find_claims(results["runs"]) if claim.text.startswith("SA")]


def test_spreads_are_shown_with_their_units(results: dict[str, Any]) -> None:
    assert show_spread(PURITY, spread_of(PURITY, results["runs"]["asr"])) == "0.310 ± 0.014"
    assert show_spread(WER, Spread.of([0.5, 0.6])) == "55.0 ± 7.1 %"
    assert show_spread(WER, Spread.of([0.5])) == "50.0 %"
    assert show_spread(WER, Spread.of([0.5, 0.5]), signed=True) == "+50.0 ± 0.0 %"
    assert show_spread(Metric("perplexity", ("x",)), Spread.of([512.3, 510.1])) == "511 ± 2"
    assert show_spread(WER, None) == "–"


def test_tables_show_every_variant_and_leave_open_what_there_is_not(results: dict[str, Any]) -> None:
    text = results_tables(results)
    main = next(part for part in text.split("\n\n") if part.startswith("|  | silhouette"))
    rows = {line.split("|")[1].strip(): line for line in main.splitlines()[2:]}
    assert list(rows) == ["untrained", *PURITIES, "chance"]
    assert rows["untrained"].count("–") == 2  # no word error rates
    assert "| 0.200 |" in rows["chance"]
    assert "100 + 120 updates, 4.0 min of training for each" in text
    assert "10 clips, 1.5 min (6 sound, 4 speech)" in text
    assert "|  | -10 dB | 5 dB | 20 dB |" in text
    gates = next(part for part in text.split("\n\n") if part.startswith("|  | speech | music"))
    assert [line.split("|")[1].strip() for line in gates.splitlines()[2:]] == ["asr+sae", "sap+sae"]


def test_the_page_is_filled_between_its_marks_again_and_again(results: dict[str, Any], tmp_path: Path) -> None:
    page, source = tmp_path / "docs" / "sap_sae.md", tmp_path / "results.json"
    page.parent.mkdir()
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    source.write_text(json.dumps(results))
    config = SapSaeReportConfig(results=str(source), page=str(page))
    write_page(config)
    first = page.read_text()
    assert first.startswith("# Title\n\n<!--")
    assert first.endswith("-->\n\nafter\n")
    assert "old" not in first
    for name in ("codes", "gates"):
        assert f"(figures/sap_sae_{name}.png)" in first
        assert (tmp_path / "docs" / "figures" / f"sap_sae_{name}.png").stat().st_size > 1000
    assert json.loads((tmp_path / "docs" / "sap_sae.json").read_text()) == results
    write_page(config)
    assert page.read_text() == first


def test_a_page_without_marks_and_results_that_are_none_are_refused(results: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the page needs one line"):
        fill_page("# Title", results)
    with pytest.raises(ValueError, match="the page needs one line"):
        fill_page(f"{END}\n{BEGIN}", results)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="has no 'runs'"):
        write_page(SapSaeReportConfig(results=str(tmp_path / "results.json"), page=str(PAGE)))


def test_the_page_of_the_project_says_what_its_results_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    results = PAGE.with_suffix(".json")
    if results.exists():
        assert fill_page(page, json.loads(results.read_text(encoding="utf-8"))) == page
