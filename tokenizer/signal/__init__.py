"""Signals in torch, on any device: resampling, the spectrograms of encoder and decoder, the Fourier transform.

``log_mel.py`` (what the encoder hears), ``mel.py`` (what flow model and vocoder share), ``resampling.py``, ``stft.py``.
"""
