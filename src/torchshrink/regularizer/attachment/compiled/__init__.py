"""Update and penalty as one program, through ``torch.compile``. The plain path is the specification."""

from torchshrink.regularizer.attachment.compiled.compiled_step import CompiledStep

__all__ = ["CompiledStep"]
