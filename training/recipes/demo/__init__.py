"""Parts of ``training/demo.py``: ``questions`` that labels of recordings answer, and the ``report``."""
