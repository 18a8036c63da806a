"""Several processes: ``companions`` (they notice when one dies), ``sharding`` (tensors of which each holds a part)."""
