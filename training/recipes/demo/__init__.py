"""Parts of ``training/demo.py``: ``questions`` that labels answer, spoken ``commands``, the ``report``."""
