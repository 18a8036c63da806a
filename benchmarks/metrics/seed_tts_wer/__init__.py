"""The word error rate of seed-tts-eval as a local ``evaluate`` module: ``text`` is its rule, ``pairs`` scores files."""
