"""Runs the command `mlaas` as `python -m mlaas`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python puts the working directory first, where a model.py or worker.py would shadow ours.
        del sys.path[0]
    root = str(Path(__file__).resolve().parents[1])
    if root not in sys.path:
        sys.path.insert(0, root)

    from mlaas.cli import main

    main()
