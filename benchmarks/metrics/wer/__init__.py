"""Word error rate, as a local ``evaluate`` module."""
