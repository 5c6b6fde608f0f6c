"""The command line: ``torchshrink VERB DATA [options]``. Nothing imports it, and it imports torch inside verbs only."""

from torchshrink.cli.app import main

__all__ = ["main"]
