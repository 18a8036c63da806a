"""Trainers and recipes: programs at the top, what they are made of in the folders.

Read a program from top to bottom first (``sft.py``, ``train_tokenizer.py``, ``train_losatok.py``, ``train_dit.py``,
``train_decoder.py``), then its folder (``audio_llm``, ``audio_tokenizer``, ``losatok``, ``diffusion``, ``decoder``),
then ``loop``, which all share; ``speed`` times updates. ``train_codec.py`` (``codec``) trains another kind of audio
tokenizer, for comparison.
``train_reasoning_codec.py`` (``reasoning_codec``) trains codes to reason with, and to give sound back.
``recipes`` holds the parts of programs that run several trainings: ``demo.py``, ``decoder_demo.py``, ``mini.py``,
``real.py``, ``sap_sae_experiment.py``. From Python, call ``train(config)`` of a trainer's module.
"""
