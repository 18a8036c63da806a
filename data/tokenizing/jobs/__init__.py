"""Tokenizing of corpora in units of an hour or so, by any number of processes: each unit becomes one parquet shard.

Whoever works on a unit holds it by a lock, writes its shard beside its place and renames it, so a unit is done when its
shard is there, whatever was killed in between. Who works on which is left to others: to this process, to processes of
this machine, or to Ray.

Reading order: ``plan`` (which records make a unit) → ``work`` (what all workers know) → ``worker`` (a unit becomes a
shard; ``shards``, ``tries``) → ``here``, ``processes``, ``cluster`` (who works) → ``job`` (all units, ``progress``).
"""
