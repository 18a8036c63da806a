"""LoSATok (arXiv:2605.27840): continuous latents of 128 numbers at 25 Hz that hold both meaning and sound.

Reading order: ``configuration.py`` (sizes), ``front_ends.py`` (waveforms to mel spectrograms), ``teacher/`` (the frozen
encoder that knows what is heard), ``bottleneck.py`` (SemBo, which makes its features small), ``semantic.py`` (both as
one), ``acoustic.py`` (what was heard, as it sounds), ``model.py`` (all of it, and the decoder), ``losses.py`` (what it
is trained by), ``names.py`` (what released files call the weights).
"""

from .model import LoSATok
from .semantic import SemanticEncoder

__all__ = ["LoSATok", "SemanticEncoder"]
