"""Sound while the codes come: block by block, and as published for comparison.

Reading order: ``decoder.py``, ``mel.py`` and ``vocoder.py`` (the two models over a growing row), ``noise.py`` (the same
draws however the row is cut), ``reference.py`` (the published scheme).
"""
