"""The command line: ``torchshrink VERB DATA [options]``. Nothing imports it, and it imports torch inside verbs only."""

import sys
from collections.abc import Sequence

from torchshrink.errors import MissingDependencyError
from torchshrink.support.optional import needed

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: see `torchshrink.cli.app`."""
    try:
        with needed("the command line"):
            from torchshrink.cli.app import run
    except MissingDependencyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run(argv)
