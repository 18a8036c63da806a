"""Short-time objective intelligibility, as a local ``evaluate`` module."""
