"""Servers under load: ``servers`` (processes on this machine), ``clients`` (who asks them, and when what came),
``figures`` (what that says). ``../serving_load.py`` is the program."""
