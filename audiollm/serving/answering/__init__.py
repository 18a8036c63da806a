"""From a request's messages to pieces of text and sound, whatever the route it came by.

Reading order: ``model.py`` (what is served), ``listening.py`` (recordings to codes, in batches), ``sounding.py`` (codes
to sound, while they come; by ``sound_threads.py``, or those in a process of their own, ``sound_process.py``; whose turn
it is say ``turns.py``), ``admission.py`` (how many at once), ``answerer.py`` (all of it).
"""
