"""Numbers as readers want them: few significant digits, no false precision."""

import math
from typing import Any

#: What stands for a missing value.
MISSING = "–"


def number(value: Any, *, digits: int = 3) -> str:
    """A measured number with a few significant digits; whole numbers get thousands separators."""
    value = as_float(value)
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value.is_integer() and abs(value) < 1e9:
        return _minus(f"{value:,.0f}")
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        return _minus(_scientific(value, 1))
    # No more than three decimals: an effect of 0.00649 is 0.006 beside one of 1.72.
    decimals = min(3, max(0, digits - 1 - math.floor(math.log10(abs(value)))))
    return _minus(f"{value:,.{decimals}f}")


def setting(value: float) -> str:
    """A number that was chosen, not measured: as it was written, without padding."""
    return f"{value:g}"


def p_value(value: Any) -> str:
    """A p- or q-value: two digits down to 0.001, then 3e-4."""
    value = as_float(value)
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    return _scientific(value, 0) if value < 1e-3 else f"{value:.2g}"


def interval(low: Any, high: Any) -> str:
    """An interval in brackets, or nothing if an end is missing."""
    if as_float(low) is None or as_float(high) is None:
        return ""
    return f"[{number(low)}, {number(high)}]"


def with_interval(value: Any, low: Any, high: Any) -> str:
    """A value followed by its interval, where there is one."""
    return " ".join(part for part in (number(value), interval(low, high)) if part)


def percent(value: Any) -> str:
    """A share (0 to 1) in percent."""
    value = as_float(value)
    return MISSING if value is None else f"{number(100 * value)} %"


def count(n: int, singular: str, plural: str | None = None) -> str:
    """A number and its noun in the right form."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def listing(words: list[str]) -> str:
    """Words joined as in a sentence."""
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"


def as_float(value: Any) -> float | None:
    """The value as a float, or None if it is missing or no number."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(result) else result


def _scientific(value: float, decimals: int) -> str:
    mantissa, exponent = f"{value:.{decimals}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _minus(text: str) -> str:
    """A true minus sign in front; the exponent keeps its hyphen, as in code."""
    return f"−{text[1:]}" if text.startswith("-") else text
