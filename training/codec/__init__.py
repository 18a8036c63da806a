"""Training of an audio tokenizer that works on waveforms, the parts of ``training/train_codec.py``.

Read ``config``, ``segments`` (what is cut out of the recordings), ``start`` (the first weights), ``objective`` (what
the trainer knows of a kind), ``wavtokenizer`` and ``sqcodec`` (the kinds), ``trainer`` (one update).
"""
