"""Analyses of a tokenizer's codes: clustering, probing, stability.

Reading order: ``clips`` (recordings with a class) → ``features`` (codes and vectors of whole clips) → ``clustering``
and ``files`` (histograms of codes) → ``probing`` (simple readers) → ``classes`` (both, of one encoding) →
``stability`` (codes under noise).
"""
