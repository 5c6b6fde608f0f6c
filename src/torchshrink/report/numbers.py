"""Numbers as a reader takes them in: few digits, no exponent where it can be helped, a true minus sign."""

from __future__ import annotations

import math


def short(value: float | None, digits: int = 3) -> str:
    """A number with so many digits that count.

    >>> short(2974.5663), short(0.0018315), short(1e-9), short(-0.25), short(None)
    ('2,970', '0.00183', '1e-9', '−0.25', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if not -5 <= size < 9:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        said = f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    else:
        rounded = round(value, digits - 1 - size)
        after = max(0, digits - 1 - size)
        said = f"{rounded:,.{after}f}"
        said = said.rstrip("0").rstrip(".") if "." in said else said
    return said.replace("-", "−") if value < 0 else said


def exactly(value: float | None, digits: int = 4) -> str:
    """The same for a column of a table, where digits stand under one another: zeros at the end are kept.

    >>> exactly(2974.5663), exactly(0.5), exactly(0.0)
    ('2,975', '0.5000', '0')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if not -4 <= size < 9:
        return short(value, digits)
    return f"{round(value, digits - 1 - size):,.{max(0, digits - 1 - size)}f}".replace("-", "−")


def whole(value: float | None) -> str:
    """A count, or a mean of counts."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value - round(value)) < 0.05 or value >= 100 else f"{value:,.1f}"


def share(value: float, *, signed: bool = False) -> str:
    """A share as a percentage.

    >>> share(-0.8187, signed=True), share(0.0021, signed=True), share(0.5), share(0.9999)
    ('−82 %', '+0.21 %', '50 %', '99.99 %')
    """
    number = abs(100 * value)
    digits = 0 if number >= 9.95 else 1 if number >= 0.95 else 2
    while 99 < number < 100 and float(f"{number:.{digits}f}") == 100 and digits < 6:
        digits += 1
    said = f"{number:,.{digits}f}"
    sign = ("−" if value < 0 else "+") if signed and float(said.replace(",", "")) else ""
    return f"{sign}{said} %"


def count(number: int, one: str, many: str = "") -> str:
    """A count and what is counted.

    >>> count(1, "row"), count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
