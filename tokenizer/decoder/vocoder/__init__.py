"""The vocoder: from a mel spectrogram to a waveform.

Reading order: ``model.py`` (HiFT), ``source.py`` (the excitation), ``layers.py``, ``weight_norm.py``, ``chunking.py``
(long signals in bounded memory).
"""
