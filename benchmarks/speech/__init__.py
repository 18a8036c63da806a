"""Spoken audio under test: synthesized, recognized, compared with voices and predicted opinions."""
