"""What is claimed of LoSATok, tried out at a small scale: the evidence behind ``docs/experiments/losatok.md``.

Reading order: ``evidence`` (the one command), ``data`` (clips with classes, and teachers' features of them),
``bottlenecks`` (ways to make features small), ``small_features`` (what each of them keeps), ``trainings`` (tokenizers),
``divergence`` (those of several weights of the KL divergence), ``spaces`` (mel and features in place of latents),
``generation`` and ``judging`` (transformers that make them), ``report`` and ``curves`` (tables, picture and page).
"""
