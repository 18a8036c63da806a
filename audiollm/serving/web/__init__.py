"""The page at ``/``: talk with the model, and look into what it hears.

Reading order: ``page.py`` (what is put where, and what of Gradio answers requests), ``assets/`` (what runs in the
browser: ``talk.js`` and ``inspector.js`` first), ``inspector/`` (what is computed for it, behind routes of its own).

The page has no way to the model of its own: the browser asks the server's routes, with the key that its user gives.
"""
