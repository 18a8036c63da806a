"""How well sounds fit their texts, as a local ``evaluate`` module."""
