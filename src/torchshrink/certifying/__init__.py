"""What can be proved about weights, given all the data: the certificate, and the duality gap of convex models."""

from torchshrink.proof.duality import DualityGap, NoDualError, duality_gap
from torchshrink.proof.prove import certify

__all__ = ["DualityGap", "NoDualError", "certify", "duality_gap"]
