"""The names that other libraries have for our penalties, for messages that say which one was meant."""

from __future__ import annotations

from collections.abc import Iterable

from torchshrink.support.text import suggestion

_ELSEWHERE = {
    "lasso": "l1",
    "laplace": "l1",
    "ridge": "l2",
    "tikhonov": "l2",
    "weight_decay": "l2",
    "enet": "elastic_net",
    "elastic": "elastic_net",
    "multi_task_lasso": "group_lasso",
    "trace_norm": "nuclear_norm",
}


def our_name(name: str) -> str:
    """What is called ``name`` elsewhere, as we call it; the name itself, in small letters, where that is not known.

    >>> our_name("Ridge"), our_name("MCP")
    ('l2', 'mcp')
    """
    return _ELSEWHERE.get(name.lower().replace("-", "_").replace(" ", "_"), name.lower())


def penalty_suggestion(name: str, words: Iterable[str]) -> str:
    """``; did you mean '…'?`` where ``name`` is another library's name of one of ``words``, or near one of them.

    >>> penalty_suggestion("ridge", ["l1", "l2"]), penalty_suggestion("Elasticnet", ["l1", "elastic_net"])
    ("; did you mean 'l2'?", "; did you mean 'elastic_net'?")
    """
    words = list(words)
    meant = our_name(name)
    return f"; did you mean {meant!r}?" if meant in words else suggestion(name, words)
