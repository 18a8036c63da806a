"""MMAR: ``python benchmarks/mmar.py --model … --data …`` is ``audiollm bench mmar --model … --data …``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from audiollm.cli.app import main

    main(["bench", "mmar", *sys.argv[1:]])
