"""Training of a LoSATok in two stages, the parts of ``training/train_losatok.py``.

Read ``config``, ``segments`` (what is cut out of the recordings), ``start`` (what each stage is made of), ``trainer``
(what both share), ``semantic_stage`` and ``tokenizer_stage`` (one trainer each), ``losses`` and ``discriminators``
(what the second learns by), ``figures`` and ``plots`` (what evaluations tell).
"""

from .config import LoSATokTrainingConfig

__all__ = ["LoSATokTrainingConfig"]
