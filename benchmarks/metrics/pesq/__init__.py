"""Perceptual evaluation of speech quality, as a local ``evaluate`` module."""
