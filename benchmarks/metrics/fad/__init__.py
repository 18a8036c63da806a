"""Fréchet audio distance, as a local ``evaluate`` module."""
