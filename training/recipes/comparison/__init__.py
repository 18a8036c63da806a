"""`audiollm compare`: a study of audio tokenizers, with an LLM trained on each.

Reading order: ``comparing`` (the whole of it) → ``downstream`` (one training and its scores) → ``sample_data`` (what
the recordings that ship can be asked).
"""
