"""Data: audio files, conversation records, batches, and corpora turned into codes.

Reading order: ``audio`` (any file to a waveform) → ``conversation`` (the training record) → ``corpus`` (recordings to
codes) → ``collation`` (examples to a batch). ``manifest`` opens the files that records lie in.
"""
