"""What the speed comparisons are made of.

``timing`` and ``flops`` (time, operations, bounds); ``encoding``, ``decoding``, ``llm_shapes`` and ``token_times``
(models with random weights, and what they work on); in ``plain/`` the paths to compare with, in ``fine_tuning/``
trainers, in ``serving/`` servers and their clients, in ``gpu/`` the sections of ``training/gpu_check.py``.
``generation`` and ``serving_load`` are programs, and so is ``decoder_quality``, the other side: what fewer evaluations
cost in sound.
"""
