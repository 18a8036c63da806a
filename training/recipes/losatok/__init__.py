"""What is claimed of LoSATok, tried out at a small scale: the evidence behind ``docs/experiments/losatok.md``.

Reading order: ``evidence`` (the one command), ``data`` (clips with classes, and teachers' features of them),
``bottlenecks`` (ways to make features small), ``small_features`` (what each of them keeps), ``divergence`` (tokenizers
of several weights of the KL divergence), ``report`` (tables and page).
"""
