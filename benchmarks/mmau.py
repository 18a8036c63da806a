"""MMAU: ``python benchmarks/mmau.py --model … --data …`` is ``audiollm bench mmau --model … --data …``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from audiollm.cli.app import main

    main(["bench", "mmau", *sys.argv[1:]])
