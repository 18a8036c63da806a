"""What the page shows of a recording and an answer.

Reading order: ``hearing.py`` (waveform, mel, codes, gate), ``rebuilding.py`` (back to sound, and how far from the
original), ``probabilities.py`` (prompt and answer, token by token), ``describing.py`` (what the model says of it, as a
SAP record), ``routes.py`` (all of it over HTTP).
"""
