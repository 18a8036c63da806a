"""Training of an audio tokenizer by the texts of its clips, the parts of ``training/train_tokenizer.py``.

Read ``config``, ``start``, ``warm_start`` and, for StableToken, ``voting`` (the model), ``targets``, ``clips``,
``check``, ``records`` and ``batches`` (the data), ``trainer`` (one update), ``evaluation``, ``monitor`` and ``plots``.
``memory`` measures how
large a micro-batch can be: ``python -m audiollm.training.audio_tokenizer.memory``.
"""

from .config import TaskWeights, TokenizerSettings, TokenizerTrainingConfig

__all__ = ["TaskWeights", "TokenizerSettings", "TokenizerTrainingConfig"]
