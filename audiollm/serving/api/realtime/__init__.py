"""``/v1/realtime``: a conversation over a websocket, in the events of OpenAI's API.

Reading order: ``configuration.py`` (what a session settles), ``events.py`` (what clients send), ``items.py`` and
``conversation.py`` (what was said), ``buffer.py`` and ``turns.py`` (what comes in, and when somebody speaks),
``outbox.py`` (what goes out), ``responses.py`` (an answer in the making), ``session.py`` (the loop), ``route.py``.
"""
