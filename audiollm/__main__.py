"""``python -m audiollm``: the ``audiollm`` command without an entry point."""

from audiollm.cli.app import main

main()
