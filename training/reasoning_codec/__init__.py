"""Training of a ReasoningCodec: what ``training/train_reasoning_codec.py`` is made of.

Reading order: ``config`` with ``settings`` and ``reconstruction_settings`` → ``stages`` (their order) → ``opening``
(the codec that a stage starts from) → ``stage_trainer`` (what the program asks of a stage) → ``supervised_stage``,
``grpo_stage``, ``reconstruction`` (a folder).
"""
