"""What an estimator is told, checked and brought into Python's own numbers: one line says what is wrong.

scikit-learn wants this in ``fit``, and grids hand over numpy's numbers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.paths.penalty_family import PenaltyFamily, family
from torchshrink.penalties import BUILTIN, ElasticNet, GroupLasso, GroupMCP, GroupSCAD, Penalty, SparseGroupLasso
from torchshrink.penalties.names import penalty_suggestion

DEFAULT_STRENGTH = 1e-3
_BY_NAME: dict[str, Penalty] = {
    "elastic_net": ElasticNet(0.5, 0.5),
    "group_lasso": GroupLasso(1.0, dim=1),
    "group_mcp": GroupMCP(1.0, dim=1),
    "group_scad": GroupSCAD(1.0, dim=1),
    "sparse_group_lasso": SparseGroupLasso(0.5, 0.5, dim=1),
}
"""Where a name stands for more than its class: equal shares, and groups of what reads one feature."""


def plain(value: Any) -> Any:
    """An array or a tensor of no dimensions, or numpy's number, as Python's."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray | Tensor) and value.ndim == 0):
        return value.item()
    return value


def number_of(value: Any, kind: type) -> Any:
    """The number of this kind (`numbers`) that ``value`` is, as Python's; None where it is none, as True is none."""
    given = plain(value)
    return given if isinstance(given, kind) and not isinstance(given, bool) else None


def real(name: str, value: Any, *, positive: bool = False) -> float:
    """A finite number ≥ 0, or above."""
    number = number_of(value, Real)
    if number is not None and math.isfinite(number) and (number > 0 or (number == 0 and not positive)):
        return float(number)
    raise InputError(f"{name}={value!r}: a finite number {'>' if positive else '≥'} 0 expected")


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number that is no truth value."""
    number = number_of(value, Integral)
    if number is not None and number >= least:
        return operator.index(number)
    raise InputError(f"{name}={value!r}: a whole number ≥ {least} expected")


def truth(name: str, value: Any) -> bool:
    """True or False, of Python or numpy, or 1 or 0."""
    given = plain(value)
    if given in (0, 1) and isinstance(given, int):
        return bool(given)
    raise InputError(f"{name}={value!r}: True or False expected")


def widths(hidden: Any) -> tuple[int, ...]:
    """The widths of the hidden layers, from one number or several."""
    if number_of(hidden, Integral) is not None:
        return (whole("hidden", hidden),)
    if (
        isinstance(hidden, Sequence | np.ndarray | Tensor)
        and not isinstance(hidden, str | bytes)
        and plain(hidden) is hidden
    ):
        return tuple(whole("hidden", each) for each in hidden)
    raise InputError(
        f"hidden={hidden!r}: the width of a hidden layer expected, or of several, such as (64, 64); () for a linear "
        "model"
    )


def polishes(polish: Any, *, linear: bool) -> bool:
    """Whether to polish at the end."""
    if isinstance(polish, str):
        if polish != "auto":
            raise InputError(f"polish={polish!r}: True, False or 'auto' expected")
        return linear
    return truth("polish", polish)


def jobs(n_jobs: Any) -> int | None:
    """How many processes, where scikit-learn's −1 stands for all processors."""
    if n_jobs is None:
        return None
    number = number_of(n_jobs, Integral)
    if not number:
        raise InputError(f"n_jobs={n_jobs!r}: how many processes expected, or -1 for one for each processor")
    return int(effective_n_jobs(operator.index(number)))


def check_module(module: Any) -> None:
    """Refuse what makes no module."""
    if isinstance(module, nn.Module):
        raise InputError(
            f"module: an instance of {type(module).__name__} given, whose weights a second fit would go on from: a "
            "function or class (inputs, outputs) -> nn.Module expected"
        )
    if module is not None and not callable(module):
        raise InputError(f"module={module!r}: a function or class (inputs, outputs) -> nn.Module expected")


def template(penalty: Any) -> Any:
    """A class of one strength, a template, rules or a callable, from what was given."""
    if not isinstance(penalty, str):
        return penalty
    name = penalty.lower()
    if name in BUILTIN:
        return _BY_NAME.get(name, BUILTIN[name])
    raise InputError(
        f"penalty={penalty!r}: expected one of {', '.join(BUILTIN)}, or a penalty{penalty_suggestion(penalty, BUILTIN)}"
    )


def family_at(penalty: Any, strength: Any) -> tuple[PenaltyFamily, float]:
    """What is penalised with, and at which strength: for None a penalty's own, and of the others `DEFAULT_STRENGTH`."""
    made = template(penalty)
    own = isinstance(made, Mapping) or (isinstance(made, Penalty) and not isinstance(penalty, str))
    if own and strength is None:
        name = "rules" if isinstance(made, Mapping) else type(made).__name__
        return PenaltyFamily(name, lambda strength: made), 1.0
    if isinstance(made, Mapping):
        raise InputError(
            f"strength={strength!r}: rules have strengths of their own; leave it out, or give a callable "
            "strength -> rules"
        )
    if own and made.constraint:
        raise InputError(f"strength={strength!r}: {made} is a constraint, which has no strength; leave it out")
    return family(made), DEFAULT_STRENGTH if strength is None else real("strength", strength)


def tuned(penalty: Any) -> Any:
    """What a path varies the strength of."""
    made = template(penalty)
    if isinstance(made, Mapping | list | tuple):
        what = "rules, which have no strength to tune" if isinstance(made, Mapping) else "several"
        raise InputError(f"penalty: {what} given; one penalty expected, or a callable strength -> penalty or rules")
    return made
