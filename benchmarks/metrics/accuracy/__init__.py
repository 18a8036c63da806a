"""Exact-match accuracy, as a local ``evaluate`` module."""
