"""The training loop that every trainer shares; nothing in it knows what is trained.

In the order of use: ``config`` (settings of every run), ``launch`` (processes), ``run`` (folder, resuming, records);
``updates``, ``batches``, ``schedule``, ``optimizer``, ``non_finite`` and ``ema`` for its updates; ``checkpoints`` and
``record`` for what it leaves; ``errors`` for how it fails.
"""
