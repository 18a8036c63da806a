"""Checkpoints of waveform decoders, in the released layout and in our own.

Reading order: ``files.py`` (folders and tensors), ``released.py`` (sizes and names of the published layout),
``hyperpyyaml.py`` (its ``config.yaml``, read without running anything).
"""
