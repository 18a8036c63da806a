"""From a request's messages to pieces of text and sound, whatever the route it came by.

Reading order: ``model.py`` (what is served), ``listening.py`` (recordings to codes, in batches), ``sounding.py`` (codes
to sound, while they come; ``turns.py``), ``admission.py`` (how many at once), ``answerer.py`` (all of it).
"""
