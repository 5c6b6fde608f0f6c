"""What can be proved about weights, given all the data: the certificate, and the duality gap of convex models."""

from torchshrink.certifying.duality import DualityGap, duality_gap
from torchshrink.certifying.prove import certify
from torchshrink.errors import NoDualError

__all__ = ["DualityGap", "NoDualError", "certify", "duality_gap"]
