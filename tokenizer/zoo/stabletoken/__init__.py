"""StableToken (arXiv:2509.22220): a Whisper encoder whose frames become codes by a vote, bit by bit.

Reading order: ``configuration.py``, ``model.py``; the vote is ``tokenizer/quantizer/lfq.py``, the encoder
``tokenizer/encoder/``.
"""
