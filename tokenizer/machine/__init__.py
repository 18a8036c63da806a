"""What computes here, and what a short trial says it does best.

Reading order: ``processor.py`` (which one it is), ``trials.py`` (what was tried is kept for the next time),
``kernel.py`` (by which library products of float32 matrices are computed).
"""
