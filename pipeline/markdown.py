"""Markdown tables of what data say; their text is shown, never markup."""

import polars as pl

_CELL_CHARS = 80
_ESCAPES = (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("`", "&#96;"), ("\n", " "))


def markdown_table(rows: pl.DataFrame) -> str:
    """Return the rows as a Markdown table, long values cut, cell text escaped."""
    header = f"| {' | '.join(rows.columns)} |\n|{'---|' * len(rows.columns)}"
    return "\n".join([header, *(f"| {' | '.join(map(_cell, row))} |" for row in rows.iter_rows())])


def _cell(value: object) -> str:
    text = str(value)
    short = text if len(text) <= _CELL_CHARS else f"{text[:_CELL_CHARS]}…"
    for character, escaped in _ESCAPES:
        short = short.replace(character, escaped)
    return short
