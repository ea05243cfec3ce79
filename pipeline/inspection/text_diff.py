"""A difference of two runs as text: what was made otherwise and why, which rows differ, and how the models did."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pipeline.evaluation.metrics import HEADLINES
from pipeline.inspection.text import aligned

_NAMED: Final = 5
"""Ids that a line names before it breaks off; own choice."""


def show_diff(found: Mapping[str, Any]) -> str:
    """Return the document of ``pipeline.inspection.diff.diff`` for people."""
    first, second = found["runs"]
    parts = [f"{second} against {first}", *_artifacts(found["artifacts"])]
    parts += [f"{table['artifact']}/{table['table']}\n" + "\n".join(_rows(table)) for table in found["tables"]]
    parts.append(_evaluation(found["evaluation"], first, second))
    return "\n\n".join(parts) + "\n"


def _artifacts(artifacts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, told in artifacts.items():
        if not told["same"]:
            content = ", but of the same content" if told.get("same_content") else ""
            lines = [f"{name}: {'; '.join(told['because']) or 'made otherwise'}{content}"]
            lines += [f"  {key}: {_pair(pair)}" for key, pair in told.get("settings", {}).items()]
            lines += [f"  rows of {table}: {_pair(pair)}" for table, pair in told["rows"].items() if pair[0] != pair[1]]
            yield "\n".join(lines)
    if same := [name for name, told in artifacts.items() if told["same"]]:
        yield f"The same: {', '.join(same)}."


def _rows(table: Mapping[str, Any]) -> Iterator[str]:
    for run in ("first", "second"):
        if ids := table.get(f"only_{run}"):
            yield f"  only in the {run} run: {_some(ids)}"
        for column, ids in table.get(f"true_in_{run}_only", {}).items():
            if ids:
                yield f"  {column} only in the {run} run: {_some(ids)}"
    if counts := table.get("rows_that_differ"):
        yield f"  rows that differ: {', '.join(f'{column} {n:,}' for column, n in counts.items())}"


def _evaluation(rows: Sequence[Mapping[str, Any]], first: str, second: str) -> str:
    if not rows:
        return "No evaluation of a model of one name on the same questions in both runs."
    cells = [["", "", "", first, second, "difference", "n"]]
    for row in rows:
        if row["metric"] in HEADLINES:
            gap = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            figures = [f"{row[run]:.3f}" for run in ("first", "second")]
            cells.append([row["model"], row["split"], row["metric"], *figures, gap, str(row["n"])])
    legend = "Difference: paired by question, with its 95 % bootstrap interval; all figures with --json."
    return "\n".join(["evaluation", *(f"  {line}" for line in aligned(cells)), legend])


def _pair(pair: Sequence[Any]) -> str:
    return " -> ".join(json.dumps(value, ensure_ascii=False) for value in pair)


def _some(ids: Sequence[str]) -> str:
    return f"{len(ids):,} ({', '.join(map(str, ids[:_NAMED]))}{', …' * (len(ids) > _NAMED)})"
