"""Polish: the end of a training without its noise, so that weights that should be zero are, and the rest balance."""

from torchshrink.polishing.polishing import STEPS_AT_THE_END, Polished, polish

__all__ = ["STEPS_AT_THE_END", "Polished", "polish"]
