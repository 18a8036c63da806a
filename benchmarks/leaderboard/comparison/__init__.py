"""What changed between two sets of results.

Reading order: ``comparable`` (what must agree) → ``paired_tests`` (chance?) → ``comparison`` → ``table``.
"""
