"""Training of a diffusion transformer on latents, the parts of ``training/train_dit.py``.

Read ``config``, ``clips`` (recordings, their texts and latents), ``start`` (what the model is made of), ``batches``
(clips of a pass, and everything random), ``trainer``, ``evaluation`` and ``plots`` (what evaluations tell).
"""

from .config import DiffusionTrainingConfig

__all__ = ["DiffusionTrainingConfig"]
