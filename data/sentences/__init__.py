"""Auditory sentences (UniAudio 2.0, arXiv 2602.04683): several segments of audio and text as one record.

Reading order: ``sources`` (what records offer) → ``templates`` (the five forms of a sentence) → ``building`` (records
to sentences, counted).
"""
