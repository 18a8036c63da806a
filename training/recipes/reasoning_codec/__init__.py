"""What the parts of a ReasoningCodec and of its multi-stream LM are worth, and the three tokenizers in one table.

Reading order: ``evidence`` (the whole of it) → ``data`` → ``codecs`` (with and without FiLM) → ``language_models``
(which codes are understood, and what the last stage gives) → ``side_by_side`` → ``report``.
"""
