"""Recordings for trainers that learn from sound alone.

Read ``checked`` (recordings of a manifest, decoded and checked once), ``segments`` (where segments are cut out of them,
and the generators of what is drawn for each).
"""
