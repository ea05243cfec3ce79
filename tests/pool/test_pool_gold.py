"""Gold answers: every usual notation is read, and none that could mean two options."""

import pytest

from pipeline.pool.gold import resolve_gold


@pytest.mark.parametrize(
    ("value", "options", "index"),
    [
        (1, "x y", 1),
        ("b", "x y", 1),
        ("(B)", "x y", 1),
        ("B.", "x y", 1),
        (" y ", "x y", 1),
        ("1", "x y", 1),
        ("B", "A B", 1),
        ("Y", "x y", None),
        (2, "x y", None),
        (-1, "x y", None),
        ("C", "x y", None),
        (True, "x y", None),
        (["B"], "x y", None),
        ("A", "B A", None),  # letter of the first, text of the second
        ("1", "1 2", None),  # text of the first, index of the second
        (1, "1 2", 1),
        (2.5, "1 2.5", 1),
    ],
)
def test_gold_readings(value: object, options: str, index: int | None) -> None:
    gold = resolve_gold(value, options.split())
    assert (gold and gold.index) == index
    assert gold is None or gold.text == options.split()[gold.index]


@pytest.mark.parametrize(
    ("value", "text"), [(" H2O ", "H2O"), (7, "7"), ("\ud800", None), ("\x00", None), ([], None), ("x" * 20_001, None)]
)
def test_open_gold_is_text(value: object, text: str | None) -> None:
    gold = resolve_gold(value, [])
    assert (gold and (gold.text, gold.index)) == (text and (text, None))
