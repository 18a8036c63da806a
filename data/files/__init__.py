"""Files that runs share: replaced whole or not at all, held by one process at a time, grown line by line.

Reading order: ``atomic`` → ``lock`` → ``json_document`` and ``json_lines`` → ``parquet``; ``hashing`` tells whether two
files are the same.
"""
