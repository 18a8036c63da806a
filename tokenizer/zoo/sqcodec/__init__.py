"""SQCodec (UniAudio 2.0, arXiv:2602.04683): a convolutional autoencoder whose latents are rounded number by number.

Reading order: ``configuration.py`` (sizes, by the keys of the released YAML), ``layers.py`` (convolutions that may be
causal, residual units), ``model.py`` (the whole of it).
"""
