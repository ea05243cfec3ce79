"""Markdown of what data say."""

import polars as pl

from pipeline.markdown import markdown_table


def test_what_data_say_is_never_markup():
    table = markdown_table(pl.DataFrame({"question": ["<script>|`x`\n"]}))
    assert "<script>" not in table
    assert table.count("\n") == 2
