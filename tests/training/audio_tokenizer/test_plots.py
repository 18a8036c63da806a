from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from audiollm.training.audio_tokenizer import plots as tokenizer_plots
from audiollm.training.audio_tokenizer.plots import draw_code_usage, draw_gates, draw_run, draw_training

QUANTIZER = {"code_usage": 0.5, "perplexity": 100.0, "relative_quantization_error": 0.3, "num_restarted": 2}


def train_line(step: int, **more: Any) -> dict[str, Any]:
    return {"event": "train", "step": step, "loss": 3.0 / step, **more}


def eval_line(step: int, **more: Any) -> dict[str, Any]:
    return {"event": "eval", "step": step, "loss": 3.0, "text_losses": {"asr": 2.0, "sap": 1.0}, **more}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is drawn, to look into."""
    drawn: list[Figure] = []
    make = tokenizer_plots._figure

    def remember(num_panels: int) -> Any:
        figure, axes = make(num_panels)
        drawn.append(figure)
        return figure, axes

    monkeypatch.setattr(tokenizer_plots, "_figure", remember)
    return drawn


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def curves(figure: Figure, panel: int = 0) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in figure.axes[panel].lines}


def test_codes_are_drawn_by_rank_and_unused_ones_left_out(tmp_path: Path, figures: list[Figure]) -> None:
    draw_code_usage(tmp_path / "codes.png", torch.tensor([0.0, 5.0, 0.0, 20.0, 1.0]), title="held out")
    [ranks, even, _] = figures[0].axes[0].lines
    assert ranks.get_xdata().tolist() == [1, 2, 3]
    assert ranks.get_ydata().tolist() == [20, 5, 1]
    assert list(even.get_ydata()) == pytest.approx([5.2, 5.2])
    assert titles(figures[0]) == ["held out: 3 of 5 codes"]
    picture = imread(tmp_path / "codes.png")
    assert picture.shape[:2] == (360, 600)
    assert np.ptp(picture) > 0.5


def test_a_codebook_that_was_never_used_is_drawn_too(tmp_path: Path) -> None:
    draw_code_usage(tmp_path / "codes.png", torch.zeros(4))
    assert (tmp_path / "codes.png").stat().st_size > 1000


def test_panels_are_those_of_the_quantities_there_are(tmp_path: Path, figures: list[Figure]) -> None:
    lines = [train_line(1), train_line(2), eval_line(2)]
    draw_training(tmp_path / "one.png", lines)
    draw_training(tmp_path / "two.png", [*lines, train_line(3, **QUANTIZER), eval_line(3, perplexity=90.0)])
    assert titles(figures[0]) == ["loss (nats per token)"]
    assert len(titles(figures[1])) == 5
    losses = curves(figures[0])
    assert losses["training"] == [(1, 3.0), (2, 1.5)]
    assert losses["held out: asr"] == [(2, 2.0)]
    assert curves(figures[1], titles(figures[1]).index("perplexity")) == {
        "training": [(3, 100.0)],
        "held out": [(3, 90.0)],
    }


def test_alarms_are_marked_in_every_panel(tmp_path: Path, figures: list[Figure]) -> None:
    lines = [train_line(1, **QUANTIZER), {"event": "alarm", "step": 7, "message": "collapse"}]
    draw_training(tmp_path / "one.png", lines)
    for axes in figures[0].axes:
        assert list(axes.lines[-1].get_xdata()) == [7, 7]


def test_gates_have_a_line_and_a_dot_per_sound_type(tmp_path: Path, figures: list[Figure]) -> None:
    lines = [
        train_line(1, gate_means={"speech": 0.4}),
        train_line(2, gate_means={"speech": 0.3, "music": 0.8}),
        eval_line(2, gate_means={"music": 0.9}),
    ]
    draw_gates(tmp_path / "gates.png", lines)
    drawn = figures[0].axes[0].lines
    assert [list(line.get_ydata()) for line in drawn] == [[0.4, 0.3], [0.8], [0.9]]
    assert drawn[1].get_color() == drawn[2].get_color() != drawn[0].get_color()


def test_a_run_is_drawn_from_its_metrics_as_far_as_they_go(tmp_path: Path) -> None:
    assert [path.name for path in draw_run(tmp_path)] == ["training.png"]
    lines = [train_line(1, gate_means={"speech": 0.5}), eval_line(1)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"event": "tr'
    (tmp_path / "metrics.jsonl").write_text(text)
    paths = draw_run(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["plots/training.png", "plots/gates.png"]
    assert all(imread(path).ndim == 3 for path in paths)
