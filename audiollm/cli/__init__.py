"""The ``audiollm`` command: one function or config class per sub-command.

Reading order: ``app`` (the parser, ``main``) → ``console`` (what commands share) → the commands by subject. Heavy
libraries are imported inside the commands, so that ``audiollm --help`` answers at once.
"""

from .app import main

__all__ = ["main"]
