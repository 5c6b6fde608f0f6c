"""How terms act inside an optimizer's step. The only package that touches an optimizer's hooks."""

from torchshrink.regularizer.attachment.attachment import Attachment
from torchshrink.regularizer.attachment.bundling import Method, Resolved, resolve_method, shared_out
from torchshrink.regularizer.attachment.caveats import DECOUPLED_NOTE, is_plain_descent
from torchshrink.regularizer.attachment.hooks import let_copy
from torchshrink.regularizer.attachment.offsets import Offsets, read_offsets
from torchshrink.regularizer.attachment.rho import (
    Fit,
    Measured,
    coupled_decay,
    default_rho,
    followed_rho,
    held_rho,
    is_looked_at,
    looked_back,
    norm_of,
    rho_limit,
    start_for_rho,
)
from torchshrink.regularizer.attachment.wrapping import stepping

__all__ = [
    "DECOUPLED_NOTE",
    "Attachment",
    "Fit",
    "Measured",
    "Method",
    "Offsets",
    "Resolved",
    "coupled_decay",
    "default_rho",
    "followed_rho",
    "held_rho",
    "is_looked_at",
    "is_plain_descent",
    "let_copy",
    "looked_back",
    "norm_of",
    "read_offsets",
    "resolve_method",
    "rho_limit",
    "shared_out",
    "start_for_rho",
    "stepping",
]
