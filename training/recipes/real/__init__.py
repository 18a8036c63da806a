"""Parts of ``training/real.py``, which makes an Audio-LLM of a real text LLM and says what came of it.

Read ``layout``, ``data``, ``start`` (the models before training), ``scoring`` of one model, ``report``.
"""
