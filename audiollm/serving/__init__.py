"""An Audio-LLM as a server: OpenAI's HTTP interface and realtime socket, and a page.

Reading order: ``engines/`` (token ids in, token ids out), ``sound/`` (formats, uploads, rates), ``answering/`` (a
request from its messages to its pieces of text and sound), ``api/`` (the routes).
"""
