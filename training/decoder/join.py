"""Joins a trained flow model and a trained vocoder to one waveform decoder.

python -m audiollm.training.decoder.join --flow runs/flow --vocoder runs/vocoder --output_dir decoder
"""

from __future__ import annotations

from audiollm.program import run_program

from .parts import join_decoder


def join(flow: str, vocoder: str, output_dir: str) -> None:
    """Joins a trained flow model and a trained vocoder to one decoder.

    Args:
        flow: run or decoder to take the flow model from.
        vocoder: run or decoder to take the vocoder from.
        output_dir: folder to write.
    """
    join_decoder(flow, vocoder, output_dir)


if __name__ == "__main__":
    run_program(join, name="join")
