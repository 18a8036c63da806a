"""Training of a waveform decoder's two models, the parts of ``training/train_decoder.py``.

Read ``config``, ``clips``, ``columns`` and ``shards`` (the data, prepared and stored), ``base`` (what both trainers
share), ``flow`` and ``vocoder`` (one trainer each), ``parts`` (what runs leave, and the decoder made of both),
``validation`` (its sound measured on held-out clips).
"""

from .config import DecoderTrainingConfig, FlowTrainingSettings, VocoderTrainingSettings
from .parts import join_decoder

__all__ = ["DecoderTrainingConfig", "FlowTrainingSettings", "VocoderTrainingSettings", "join_decoder"]
