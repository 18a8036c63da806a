"""What a run's lines of metrics say: figures by name, the best evaluation, curves.

``figures`` → ``best`` → ``curves``; all of them read lines, as ``loop/record.py`` writes them, and know no trainer.
"""
