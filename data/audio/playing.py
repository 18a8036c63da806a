"""Sound in a notebook: an HTML player that holds the samples, without IPython."""
# Shapes: N samples.

from __future__ import annotations

import base64
import html

from torch import Tensor

from .writing import wav_bytes


def audio_html(waveform: Tensor, sample_rate: int, caption: str = "") -> str:
    """Makes a player, which notebooks show for a value whose ``_repr_html_`` returns it.

    Args:
        waveform: float in [-1, 1], ``[N]``; louder samples are clipped.
        sample_rate: Hz.
        caption: a text above it.
    """
    sound = wav_bytes(waveform.detach().float().cpu().clamp(-1, 1), sample_rate)
    player = f'<audio controls src="data:audio/wav;base64,{base64.b64encode(sound).decode("ascii")}"></audio>'
    return f"{text_html(caption)}{player}" if caption else player


def text_html(text: str) -> str:
    """A text as a paragraph, with nothing in it that HTML would take for a mark."""
    return f"<p>{html.escape(text)}</p>"
