"""python -m mlaas is the command mlaas."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python looks into the working directory first, where model.py and worker.py are somebody else's.
        del sys.path[0]
    root = str(Path(__file__).resolve().parents[1])
    if root not in sys.path:
        sys.path.insert(0, root)

    from mlaas.cli import main

    main()
