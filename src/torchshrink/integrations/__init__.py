"""Where people live: one module per framework, each imported only when it is asked for.

``torchshrink.integrations.sklearn``, ``.lightning``, ``.transformers``, ``.skorch``. Nothing here is loaded by
``import torchshrink``.
"""
