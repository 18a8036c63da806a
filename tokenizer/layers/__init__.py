"""Layers that several tokenizers are made of.

Reading order: ``seanet.py`` (waveform ⇄ features by strided convolutions), ``vocos.py`` (features to features, for
spectra), ``position.py`` (what looks at the whole clip before them), ``istft.py`` (features to waveform).
"""
