"""What ``gpu_check.py`` is made of: sections, each a process of its own, whose measurements are written down at once.

The program's side: ``plan`` (the sections and their time), ``processes`` (runs one), ``document`` (JSON and table),
``flags``. A section's side: ``measurements`` (what does not fit, fails or comes too late), then ``machine``,
``marked_tests``, ``encode``, ``decode`` and ``generate``; fine-tuning is in ``training/speed/``.
"""
