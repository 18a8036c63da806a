"""Mel-cepstral distortion, as a local ``evaluate`` module."""
