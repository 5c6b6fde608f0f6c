"""Polish: the end of a training without its noise, so that weights that should be zero are, and the rest balance."""

from torchshrink.polishing.polishing import Polished, polish

__all__ = ["Polished", "polish"]
