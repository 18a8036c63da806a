"""Encoding at released sizes: by number format, against the plain path, and how many codes a format changes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

from torch import Tensor

from audiollm.benchmarks.speed.encoding import (
    RELEASED_SIZES,
    TokenizerSizes,
    build_model,
    clip_lengths,
    in_another_form,
    make_clips,
    share_changed,
)
from audiollm.benchmarks.speed.flops import counted
from audiollm.benchmarks.speed.gpu.measurements import Figures, Measurements, run_section
from audiollm.benchmarks.speed.plain.encoder import PlainEncoder
from audiollm.benchmarks.speed.timing import bound_seconds, in_turns, path_figures
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.rates import float32_products

TARGET_SPEEDUP = 8.0
"""Times that encode() in the fastest format is to be faster than the plain path."""

_PLAIN = "plain"
_FORMS = (_PLAIN, "float32", "tf32", "bfloat16", "float16")
_PLAIN_BATCH = 128  # segments, as the published code has it
_LONG_SECONDS, _NUM_FILES, _ROUNDS = 60.0, 64, 3
_SMOKE_SIZES = TokenizerSizes(d_model=64, encoder_layers=2, quantize_position=1, codebook_size=32)


class _EncodeTimer:
    """Times all forms on some clips; the plain path and float32 come first, as the others are compared with them."""

    def __init__(self, model: UniAudioTokenizer, clips: list[Tensor], rounds: int, gflops: dict[str, float]) -> None:
        self._model, self._clips, self._rounds, self._gflops = model, clips, rounds, gflops
        self._audio_seconds = sum(len(clip) for clip in clips) / SAMPLE_RATE
        self._plain_seconds: list[float] = []
        self._exact_codes: list[list[int]] | None = None

    def measure(self, form: str) -> Figures:
        device = self._model.device
        run = self._path(form)
        with _products_of(form):
            codes, flops = counted(run)
            seconds = in_turns({form: run}, self._rounds, device, has_run=True)[form]
        timed = {form: seconds} | ({_PLAIN: self._plain_seconds} if self._plain_seconds else {})
        known = self._gflops if "float32" in self._gflops else None
        bounds = {} if known is None else bound_seconds({form: flops}, known)
        figures: Figures = dict(path_figures(timed, self._audio_seconds, bounds)[form])
        figures |= {"flops": flops, "audio_seconds": self._audio_seconds, "seconds_of_rounds": seconds}
        if form == _PLAIN:
            self._plain_seconds = seconds
        elif form == "float32":
            self._exact_codes = codes
        if self._exact_codes is not None:
            figures["share_of_codes_changed"] = share_changed(self._exact_codes, codes)
        return figures | {"told": _told(form, figures)}

    def _path(self, form: str) -> partial[list[list[int]]]:
        if form == _PLAIN:
            plain = PlainEncoder(self._model).to(self._model.device).eval()
            return partial(plain.encode, self._clips, _PLAIN_BATCH)
        same = form in ("float32", "tf32")
        return partial(_encode, self._model if same else in_another_form(self._model, form), self._clips)


def _encode(model: UniAudioTokenizer, clips: list[Tensor]) -> list[list[int]]:
    return model.encode(clips, SAMPLE_RATE).tolist()


def _products_of(form: str) -> AbstractContextManager[None]:
    return float32_products(in_tf32=True) if form == "tf32" else nullcontext()


def _told(form: str, figures: Figures) -> str:
    told = [f"{1 / figures['real_time_factor']:,.0f} × real time"]
    if form != _PLAIN and "speedup_median" in figures:
        told.append(f"{figures['speedup_median']:.1f} × plain")
    if "share_of_bound" in figures:
        told.append(f"{figures['share_of_bound']:.0%} of the bound")
    if form not in (_PLAIN, "float32") and "share_of_codes_changed" in figures:
        told.append(f"{figures['share_of_codes_changed']:.2%} of the codes changed")
    return ", ".join(told)


def measure(measurements: Measurements) -> None:
    """One long file and many of different lengths, in every form, and whether the target is reached."""
    settings = measurements.settings
    sizes = _SMOKE_SIZES if settings.smoke else RELEASED_SIZES
    long_seconds, num_files, rounds = (3.0, 2, 1) if settings.smoke else (_LONG_SECONDS, _NUM_FILES, _ROUNDS)
    lengths = [1.0, 2.0] if settings.smoke else clip_lengths(num_files, seed=0)
    clips = {
        f"{num_files} files of {min(lengths):.0f}-{max(lengths):.0f} s": make_clips(lengths, seed=3),
        f"one file of {long_seconds:g} s": make_clips([long_seconds], seed=2),
    }
    verdict = f"{TARGET_SPEEDUP:g} times as fast as plain"
    measurements.announce([*(f"{title}, {form}" for title in clips for form in _FORMS), verdict])
    model = build_model(sizes, seed=0, device=measurements.device)
    speedups: dict[str, float] = {}
    for title, own in clips.items():
        timer = _EncodeTimer(model, own, rounds, settings.gflops)
        for form in _FORMS:
            figures = measurements.make(f"{title}, {form}", partial(timer.measure, form))
            if figures is not None and form != _PLAIN and "speedup_median" in figures:
                speedups[f"{title}, {form}"] = figures["speedup_median"]
    measurements.make(verdict, partial(_verdict, speedups))


def _verdict(speedups: dict[str, float]) -> Figures:
    reached = sorted(name for name, speedup in speedups.items() if speedup >= TARGET_SPEEDUP)
    told = f"yes: {'; '.join(reached)}" if reached else "no"
    return {"told": told, "target": TARGET_SPEEDUP, "reached": reached, "speedups": speedups}


if __name__ == "__main__":
    run_section(measure)
