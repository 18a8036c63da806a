"""The routes, in OpenAI's shapes.

Reading order: ``errors.py`` (what is told when something is wrong), ``middleware.py`` (keys, limits, request ids),
``state.py`` (what routes share), then a file for each route, and ``app.py``, which puts them together.
"""
