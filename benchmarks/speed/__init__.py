"""What the speed comparisons are made of.

``timing`` and ``flops`` (time, operations, bounds); ``encoding``, ``decoding`` and ``llm_shapes`` (models with random
weights, and what they work on); in ``plain/`` the paths to compare with, in ``fine_tuning/`` trainers, in ``gpu/`` the
sections of ``training/gpu_check.py``. ``decoder_quality`` is the other side: what fewer evaluations cost in sound.
"""
