"""The tokenizer in training: a text decoder must write what was said and how it sounded from the codes alone.

Reading order: ``model.py`` (both parts together), ``text_decoder.py`` (Whisper's decoder), ``text.py`` (texts and start
tokens of the tasks), ``cross_entropy.py`` (the loss), ``checkpoints.py``. Public names are those of
``audiollm.tokenizer``.
"""
