"""The encoder: from waveforms to the features that are quantized, and around it to codes.

Reading order: ``whisper.py`` (convolutions, layers, pooling), ``sae.py`` (what brings the sound of an utterance back),
``segments.py`` (long audio in pieces), ``encoding.py`` (waveforms to codes).
"""
