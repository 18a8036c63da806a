"""Parts of ``training/mini.py``, which makes the embedded model.

Read ``layout`` (where everything lies), ``data``, ``conversations`` (what the LM is asked), ``lm``, ``package`` (small
enough to ship), ``evaluation``, ``card``.
"""
