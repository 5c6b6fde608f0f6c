"""How a table's text is to be read, where it does not say so itself."""

from __future__ import annotations

from dataclasses import dataclass

from torchshrink.errors import InputError

SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Format:
    r"""What the reader of a table is told rather than left to find out.

    Args:
        sep: what stands between the values of a CSV file, one character; found in the file where None.
        decimal: the decimal point of numbers that are text, ``"."`` or ``","``; found column by column where None.
        thousands: what groups the digits of such numbers, one character; where None, blanks and apostrophes do, and
            the comma or point that is not the decimal point.
        na: further texts that mean a missing value, in features and target alike; one that is a number, such as
            ``-999``, also where the column is numbers already.
        drop: columns to leave out.

    >>> Format(sep=";", decimal=",").decimal
    ','
    """

    sep: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    na: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sep is not None and (len(self.sep) != 1 or self.sep in '"\r\n' or self.sep.isalnum()):
            raise InputError(f"sep {self.sep!r}: one character expected, such as ';' (or 'tab')")
        if self.decimal not in (None, ".", ","):
            raise InputError(f"decimal {self.decimal!r}: '.' or ',' expected")
        if self.thousands is not None and (len(self.thousands) != 1 or self.thousands.isalnum()):
            raise InputError(f"thousands {self.thousands!r}: one character expected, such as ',' or '.'")
        if self.thousands is not None and self.thousands == self.decimal:
            raise InputError(f"decimal and thousands are both {self.decimal!r}: they must differ")

    def given(self) -> dict[str, object]:
        """What is said, by name."""
        return {name: value for name, value in vars(self).items() if value not in (None, ())}


UNSAID = Format()
