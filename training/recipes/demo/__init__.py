"""Parts of ``training/demo.py``: ``questions`` that labels of recordings answer, spoken ``commands``, the ``report``."""
