"""MMSU: ``python benchmarks/mmsu.py --model … --data …`` is ``audiollm bench mmsu --model … --data …``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from audiollm.cli.app import main

    main(["bench", "mmsu", *sys.argv[1:]])
