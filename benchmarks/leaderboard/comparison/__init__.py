"""Comparison of two sets of results: what changed, and whether by more than chance.

Reading order: ``comparable`` (what must agree) → ``paired_tests`` (chance?) → ``comparison`` → ``table``.
"""
