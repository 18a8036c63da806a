"""Divergence of what a classifier hears, as a local ``evaluate`` module."""
