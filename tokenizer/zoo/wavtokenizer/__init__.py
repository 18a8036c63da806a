"""WavTokenizer (Ji et al., 2024, arXiv:2408.16532): one codebook, and a decoder that ends in an inverse STFT.

Reading order: ``configuration.py`` (sizes, from a release's YAML and its tensors), ``model.py``.
"""
