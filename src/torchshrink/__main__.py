"""``python -m torchshrink``: the same as the ``torchshrink`` command."""

import sys

from torchshrink.cli import main

if __name__ == "__main__":
    sys.exit(main())
