"""The routes under ``/v1/audio``: speech, transcriptions, voices, codes."""
