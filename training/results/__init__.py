"""What a run's lines of metrics say: figures by name, the best evaluation, curves, card.

``figures`` → ``best`` → ``curves``, ``card``; all of them read lines as
``loop/record.py`` writes them, and know no trainer.
"""
