"""Cosine similarity of speaker vectors, as a local ``evaluate`` module."""
