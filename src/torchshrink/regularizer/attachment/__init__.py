"""How terms act inside an optimizer's step. The only package that touches an optimizer's hooks."""

from torchshrink.regularizer.attachment.attachment import Attachment
from torchshrink.regularizer.attachment.bundling import Method, Resolved, resolve_method
from torchshrink.regularizer.attachment.caveats import DECOUPLED_NOTE, is_plain_descent
from torchshrink.regularizer.attachment.latent import Offsets

__all__ = ["DECOUPLED_NOTE", "Attachment", "Method", "Offsets", "Resolved", "is_plain_descent", "resolve_method"]
