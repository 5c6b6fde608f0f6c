"""Text that holds a number with something beside it: ``20 °C``, ``<5``, ``5 ± 1``, ``12 kg``.

A column of such texts is neither numbers, for ``12 kg`` and ``900 g`` are in two units, nor categories. Names that have
a number in them are categories: a letter or word before it (``A1``, ``v1.2``, ``Room 12``), an ordinal (``1st``), a
letter that is no unit or a word that differs after it (``12b``, ``5 Main Street``), ranges (``10-20``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

BLANKS = " \u00a0\u2007\u2009\u202f"
CURRENCY = (
    "(?:[A-Z]{0,3}\\$|[¢£¤¥֏؋৳฿៛₠-⃀﷼﹩＄￠￡￥￦]|USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON"
    "|BRL|MXN|ZAR|SGD|HKD|KRW|TRY|ILS|[Kk]r\\.?|Rs\\.?|S?Fr\\.|Rp\\.?|zł|Kč|Ft|руб\\.?)"
)
_UNIT_NAMES = (
    "mg g gr kg t ton tons tonne tonnes lb lbs oz st mm cm dm m km in inch inches ft feet yd mi mile miles sq fl ha "
    "acres ml cl dl l liter liters litre litres gal ms s sec secs second seconds min mins minute minutes h hr hrs "
    "hour hours day days wk wks week weeks mo month months y yr yrs year years hz khz mhz ghz w kw mw wh kwh mwh v mv "
    "kv ma mah j kj kcal cal n kn pa hpa kpa mpa bar mbar psi hg k m mn mio million millions bn mrd billion billions "
    "tsd thousand lakh cr crore kb mb gb tb mph kmh kph rpm ppm ppb mol mmol nm µm μm µg μg mcg ng iu bp bps db dpi "
    "px pct percent "
)
_UNITS = frozenset(_UNIT_NAMES.split())
_NUMBER = rf"(?:\d{{1,3}}(?:[.,'’{BLANKS}]\d{{3}})+(?:[.,]\d+)?|\d+(?:[.,]\d+)?|[.,]\d+)"
_SYMBOL = r"[^\w\s.,:;/\\()\[\]{}&@§¶_-]"
_LETTER = r"[^\W\d_]"
_ABOUT = (
    r"(?i:circa|ca\.?|approx\.?|about|up to|under|over|less than|more than|at least|at most|min\.?|max\.?)(?=[ \d])"
)
_ONE = re.compile(
    rf"[+-]?(?P<before>{CURRENCY}|{_SYMBOL}{{1,2}}|{_ABOUT})?\s*[+-]?\s*{_NUMBER}"
    rf"(?:(?P<gap>\s*)(?P<after>(?:{_LETTER}|{_SYMBOL})[^\d]{{0,19}}[23]?))?"
)
_ORDINAL = re.compile(r"((?i:st|nd|rd|th)|er?|re|ère|[eè]me|[ºª])\b(?!/)")
_FRACTION = "[½⅓⅔¼¾⅕-⅞]"
_TWO = re.compile(
    rf"[+-]?(?:(?:\d+\s+)?{_NUMBER}(?:\s*(?:±|\+/?-|[/:^]|\*\*)\s*[+-]?{_NUMBER}|\s*[(\[]\s*[+-]?{_NUMBER}\s*%?\s*[)\]]"
    rf"|\s*[x×*·]\s*10\s*(?:(?:\^|\*\*)\s*[+-]?\d+|[⁺⁻]?[⁰¹²³⁴-⁹]+)|[dD][+-]\d+|\s*{_FRACTION})|{_FRACTION})"
    rf"(?:\s*/?(?:{_LETTER}|{_SYMBOL})[^\d]{{0,10}}[23]?)?"
)
_PARTS = re.compile(rf"(?:{_NUMBER}\s*(?:[°'\"′″’”]{{1,2}}|{_LETTER}{{1,7}}\.?)\s*){{1,3}}(?:{_NUMBER}|[NSEW])?")
_LONGEST = 40  # characters: what is longer is prose
_DASH = re.compile(rf"[+-]?{CURRENCY}?\s*{_NUMBER}\s?-\s*(?:{CURRENCY}|%)?")
_DASHES = str.maketrans(dict.fromkeys("−–‒—﹣－", "-"))


def beside(text: str) -> str | None:
    """What stands beside the number in ``text``: "" for a unit or sign, else the word; None if the text is a name.

    >>> beside("20 °C"), beside("<5"), beside("120/80"), beside("3 rooms"), beside("A1"), beside("1st")
    ('', '', '', 'rooms', None, None)
    """
    text = re.sub(r"º(?=\s?[CF])", "°", text.translate(_DASHES))
    if len(text) > _LONGEST:
        return None
    if _TWO.fullmatch(text):
        return ""
    found = _ONE.fullmatch(text)
    if found is None:
        parts = _PARTS.fullmatch(text)
        return "" if parts and _are_units(text.rstrip("NSEW")) else None
    before, gap, after = found["before"], found["gap"], found["after"]
    if after is None:
        return "" if before else None
    if not gap and _ORDINAL.match(after):
        return None
    symbol = len(after) <= 8 and re.search(_SYMBOL, after)
    degrees = gap and after in ("C", "F")  # but 12C is a name
    return "" if symbol or degrees or _are_units(after) else after.strip()


def measures_among(counts: Mapping[str, int], share: float) -> list[str]:
    """Those of the texts that are numbers with a unit, a sign, or the commonest word beside them; none if too few are.

    Args:
        counts: how often each occurs.
        share: how much of all must be.
    """
    found = {text: what for text in counts if (what := beside(text)) is not None}
    least = share * sum(counts.values())
    words: Counter[str] = Counter()
    for text, what in found.items():
        words[what] += counts[text]
    words.pop("", None)
    word, _ = next(iter(words.most_common(1)), ("", 0))
    measures = [text for text, what in found.items() if what in ("", word)]
    return measures if sum(counts[text] for text in measures) >= least else []


def _are_units(text: str) -> bool:
    return all(word.rstrip("²³").casefold() in _UNITS for word in re.findall(rf"{_LETTER}+", text))


def has_dash(text: str) -> bool:
    """Whether ``text`` is a number with a dash after it, which may be a minus (``12-``) or a mark (``2-``)."""
    return _DASH.fullmatch(text.translate(_DASHES)) is not None
