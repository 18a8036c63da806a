"""``python -m audiollm.cli``: as ``python -m audiollm``, for callers who name the module that holds the command."""

from .app import main

main()
