"""Training of an audio tokenizer that works on waveforms, the parts of ``training/train_codec.py``.

Read ``config``, ``clips`` (recordings and the segments that are cut out of them), ``start`` (the first weights),
``trainer`` (one update).
"""
