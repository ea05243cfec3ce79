"""What differs between two runs: how each artifact was made, what its tables hold, and how the models did.

Tables with ids are compared row by row, without the lists of numbers; what both runs share is not read.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.metrics import estimate
from pipeline.inspection.reading import artifacts_of, tables_of
from pipeline.predictions.contenders import in_order
from pipeline.store.artifact import Artifact
from pipeline.store.store import Run

_KEY: Final = ("model", "split", "id", "examples", "sample")
"""Columns that tell rows of a question apart, where a table has them."""


def diff(first: Run, second: Run) -> dict[str, Any]:
    """Return what differs, as a document for machines.

    Returns:
        ``runs``: their names. ``artifacts``: for each artifact whether it is the same, else ``because`` of what, which
        ``settings`` differ, and ``rows`` per table of both. ``tables``: of each table with ids, the ids that one run
        alone has, how many rows differ by column, and for truth values the ids of which one run alone says yes.
        ``evaluation``: figures of models of one name on the questions that both runs asked, with the paired difference.
    """
    one, other = artifacts_of(first), artifacts_of(second)
    names = [*one, *(name for name in other if name not in one)]
    return {
        "runs": [first.name, second.name],
        "artifacts": {name: _artifact(one.get(name), other.get(name)) for name in names},
        "tables": _tables(one, other),
        "evaluation": _evaluation(one, other),
    }


def _artifact(one: Artifact | None, other: Artifact | None) -> dict[str, Any]:
    rows = [{} if artifact is None else artifact.manifest.rows for artifact in (one, other)]
    told: dict[str, Any] = {"rows": {table: [each.get(table) for each in rows] for table in rows[0] | rows[1]}}
    if one is None or other is None:
        return {"same": False, "because": [f"only in the {'second' if one is None else 'first'} run"], **told}
    ours, theirs = one.manifest, other.manifest
    told["settings"] = _changed(ours.settings, theirs.settings)
    if ours.fingerprint == theirs.fingerprint:
        return {"same": True, "because": [], **told}
    return {
        "same": False,
        "because": list(_reasons(ours.provenance, theirs.provenance)),
        "same_content": ours.digests == theirs.digests,
        **told,
    }


def _changed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the keys whose values differ, with both values."""
    return {key: [ours.get(key), theirs.get(key)] for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)}


def _reasons(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return which parts of what a fingerprint is taken over differ, in words."""
    reasons = []
    for part in {**ours, **theirs}:
        one, other = ours.get(part), theirs.get(part)
        if one == other:
            continue
        if part == "sources":
            one, other = dict(one or ()), dict(other or ())
        if isinstance(one, dict) and isinstance(other, dict):
            parts = _changed(one, other)
            versions = [f"{name} {' -> '.join(map(str, pair))}" for name, pair in parts.items()]
            reasons.append(f"{part}: {', '.join(versions if part == 'libraries' else parts)}")
        else:
            reasons.append(str(part))
    return reasons


def _tables(one: Mapping[str, Artifact], other: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    theirs = {(name, table): rows for name, table, rows in tables_of(other)}
    found = []
    for name, table, rows in tables_of(one):
        if (name, table) in theirs and not _same_files(one[name], other[name], table):
            compared = _compare(rows, theirs[name, table])
            if any(compared.values()):
                found.append({"artifact": name, "table": table, **compared})
    return found


def _same_files(one: Artifact, other: Artifact, table: str) -> bool:
    def digests(artifact: Artifact) -> list[str]:
        return [artifact.manifest.digests[str(path.relative_to(artifact.folder))] for path in artifact.files(table)]

    return digests(one) == digests(other)


def _compare(one: pl.LazyFrame, other: pl.LazyFrame) -> dict[str, Any]:
    """Return which ids one table alone holds and, where rows can be told apart, how many differ by column."""
    schema, theirs = one.collect_schema(), other.collect_schema()
    if "id" not in schema or "id" not in theirs:
        return {}
    shared = [name for name in schema if theirs.get(name) == schema[name] and not _is_numbers(schema[name])]
    ids = [table.select("id").unique().collect()["id"] for table in (one, other)]
    told: dict[str, Any] = {
        "only_first": ids[0].filter(~ids[0].is_in(ids[1].implode())).sort().to_list(),
        "only_second": ids[1].filter(~ids[1].is_in(ids[0].implode())).sort().to_list(),
    }
    key = [name for name in _KEY if name in shared]
    values = [name for name in shared if name not in key]
    ours, others = (
        table.select(*key, *(_short(name, schema[name]) for name in values)).collect() for table in (one, other)
    )
    if not values or ours.select(key).is_duplicated().any() or others.select(key).is_duplicated().any():
        return told
    both = ours.join(others, on=key, suffix="/other", nulls_equal=True)
    differ = {name: both.filter(pl.col(name).ne_missing(pl.col(f"{name}/other"))) for name in values}
    told["rows_that_differ"] = {name: rows.height for name, rows in differ.items() if rows.height}
    truths = [name for name in told["rows_that_differ"] if schema[name] == pl.Boolean]
    told["true_in_first_only"] = {name: _ids(differ[name].filter(name)) for name in truths}
    told["true_in_second_only"] = {name: _ids(differ[name].filter(~pl.col(name))) for name in truths}
    return told


def _is_numbers(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.List) and kind.inner != pl.String


def _short(name: str, kind: pl.DataType) -> pl.Expr:
    """Return a column such that long texts take little memory: as hashes."""
    texts = pl.col(name).list.join("\x1f") if isinstance(kind, pl.List) else pl.col(name)
    return texts.hash().alias(name) if kind == pl.String or isinstance(kind, pl.List) else texts


def _ids(rows: pl.DataFrame) -> list[str]:
    return rows["id"].unique().sort().to_list()


def _evaluation(one: Mapping[str, Artifact], other: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Return the figures of both runs where a model of one name answered the same questions, and the difference."""
    ours, theirs = (_predictions(artifacts) for artifacts in (one, other))
    rows = []
    for split in sorted(ours.keys() & theirs.keys()):
        asked = [ours[split], theirs[split]]
        for model in in_order(set(asked[0]["model"]) & set(asked[1]["model"])):
            answers = [table.filter(pl.col("model") == model) for table in asked]
            pair = [answers[0].join(answers[1], on="id", how="semi"), answers[1].join(answers[0], on="id", how="semi")]
            if pair[0].height:
                rows += [{"model": model, "split": split, **row} for row in _figures(pair, split)]
    return rows


def _predictions(artifacts: Mapping[str, Artifact]) -> dict[str, pl.DataFrame]:
    tables = [rows for name, table, rows in tables_of(artifacts) if (name, table) == ("evaluation", "predictions")]
    read = pl.concat(tables).collect() if tables else pl.DataFrame({"split": []})
    return {split: read.filter(pl.col("split") == split) for split in read["split"].unique()}


def _figures(answers: Sequence[pl.DataFrame], split: str) -> list[dict[str, Any]]:
    config = EvaluationConfig()
    first, second = (estimate(table, config, split) for table in answers)
    tail = (1 - config.confidence_level) / 2
    rows = []
    for metric in (metric for metric in first if metric in second):
        gap = second[metric] - first[metric]
        low, high = np.nanquantile(gap.draws[1:], [tail, 1 - tail])
        rows.append(
            {
                "metric": metric,
                "first": float(first[metric].draws[0]),
                "second": float(second[metric].draws[0]),
                "difference": float(gap.draws[0]),
                "low": float(low),
                "high": float(high),
                "n": int(gap.used.sum()),
            }
        )
    return rows
