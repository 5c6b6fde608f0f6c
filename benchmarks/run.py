"""Print every table that the README quotes: ``make bench``. Name scripts to run only these."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = ("truth.py", "steps.py", "lanes.py", "verdict.py")


def main() -> None:
    for script in sys.argv[1:] or SCRIPTS:
        subprocess.run([sys.executable, str(HERE / script)], check=True)
        print(flush=True)


if __name__ == "__main__":
    main()
