"""Numbers in the report read as people write them."""

import math

import pytest

from bioattn.report.numbers import interval, number, p_value, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12000, "12,000"),
        (0.8664, "0.866"),
        (1.7249, "1.72"),
        (123.456, "123"),
        (-0.0731, "−0.073"),
        (0.00052, "5.2e-4"),
        (-0.00052, "−5.2e-4"),
        (2.5e7 + 0.5, "2.5e7"),
        (float("nan"), "–"),
        (None, "–"),
        ("text", "–"),
        (math.inf, "∞"),
    ],
)
def test_number(value: object, text: str):
    """Three digits, thousands separators, a true minus, and a dash for nothing."""
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0321, "0.032"), (0.00012, "1e-4"), (1.0, "1"), (0.0, "0"), (None, "–")])
def test_p_value(value: object, text: str):
    """Two digits down to 0.001, then a power of ten."""
    assert p_value(value) == text


def test_interval_needs_both_ends():
    """An interval with one end is none."""
    assert interval(0.1, 0.25) == "[0.100, 0.250]"
    assert interval(0.1, None) == "" and interval(float("nan"), 1) == ""


def test_percent():
    """Shares become percent."""
    assert percent(0.962) == "96.2 %" and percent(None) == "–"
