"""Do tables have the declared form, do their rows add up, and was no gold read where it must not be?"""

from collections.abc import Callable, Mapping
from typing import Final

import pyarrow.parquet as pq

from pipeline.checks.check import Evidence, Finding
from pipeline.errors import ArtifactError
from pipeline.stages import stage_of

_GOLD: Final = frozenset({"gold_labels", "test_labels"})


def schemas(evidence: Evidence) -> Finding | None:
    """Judge every table of the stage's artifacts: columns, types and notes as declared, rows as the manifest says."""
    faults, n_tables = [], 0
    for name in stage_of(evidence.stage).artifacts:
        artifact = evidence.run.find(name)
        if artifact is None:
            return None
        for table, n_rows in artifact.manifest.rows.items():
            n_tables += 1
            try:
                artifact.scan(table)
            except ArtifactError as error:
                faults.append(str(error))
                continue
            found = sum(pq.read_metadata(path).num_rows for path in artifact.files(table))
            if found != n_rows:
                faults.append(f"{artifact.path(table)} has {found} rows, not {n_rows}: materialize '{name}' again")
    return Finding(not faults, "; ".join(faults) or f"{n_tables} tables as declared", float(len(faults)), 0.0)


def row_counts(evidence: Evidence) -> Finding | None:
    """Judge that rows in are rows kept and rows dropped: nothing is lost, and nothing counted twice."""
    sums = [(what, left, right) for what, left, right in _SUMS[evidence.stage](evidence) if None not in (left, right)]
    if not sums:
        return None
    wrong = [f"{what}: {left} and {right}" for what, left, right in sums if left != right]
    remedy = f"rows were lost or counted twice: materialize '{evidence.stage}' again"
    found = "; ".join(wrong) or "; ".join(f"{what}: {left}" for what, left, _ in sums)
    return Finding(not wrong, f"{found}; {remedy}" if wrong else found)


_Sums = list[tuple[str, int | None, int | None]]


def _raw_pool(evidence: Evidence) -> _Sums:
    refused, kept = evidence.rows("quarantine"), evidence.rows("raw_pool")
    if kept is None or refused is None:
        return []
    return [("rows read, and questions kept with rows refused", evidence.notes["read"], kept + refused)]


def _pool(evidence: Evidence) -> _Sums:
    kept, dropped = evidence.rows("pool") or 0, evidence.rows("pool", "dropped") or 0
    return [("raw questions, and questions kept with those dropped", evidence.rows("raw_pool"), kept + dropped)]


def _rollouts(evidence: Evidence) -> _Sums:
    n_questions, n_samples = evidence.rows("pool"), evidence.section.model_dump()["n_samples"]
    expected = None if n_questions is None else n_questions * n_samples
    return [("responses, and questions times samples", evidence.rows("rollouts"), expected)]


def _neuron_scores(evidence: Evidence) -> _Sums:
    counted = [evidence.rows("neuron_scores", table) or 0 for table in ("neuron_scores", "unscored_rollouts")]
    return [("responses, and those scored with those that are not", evidence.notes["rollouts"], sum(counted))]


def _as_many(what: str, left: str, right: str) -> Callable[[Evidence], _Sums]:
    return lambda evidence: [(what, evidence.rows(left), evidence.rows(right))]


def _teacher_contexts(evidence: Evidence) -> _Sums:
    subset = evidence.run.find("curated_subset")
    selected = None if subset is None else int(subset.read()["selected"].sum())
    return [("training questions, and their contexts", selected, evidence.rows("teacher_contexts"))]


_SUMS: Final[Mapping[str, Callable[[Evidence], _Sums]]] = {
    "raw_pool": _raw_pool,
    "pool": _pool,
    "rollouts": _rollouts,
    "answers": _as_many("responses, and what they state", "rollouts", "answers"),
    "pseudo_labels": _as_many("questions, and votes", "pool", "pseudo_labels"),
    "neuron_scores": _neuron_scores,
    "curated_subset": _as_many("questions, and verdicts on them", "pool", "curated_subset"),
    "teacher_contexts": _teacher_contexts,
}
RECONCILED: Final = tuple(_SUMS)
"""Stages of which ``row_counts`` knows what must add up."""


def label_firewall(evidence: Evidence) -> Finding | None:
    """Judge that nothing that the result was made from, however far back, is a table of gold answers."""
    own = evidence.run.find(evidence.stage)
    if own is None:
        return None
    waiting, seen = list(own.manifest.provenance["inputs"]), set[str]()
    while waiting:
        if (name := waiting.pop()) in seen:
            continue
        seen.add(name)
        if artifact := evidence.run.find(name):
            waiting += artifact.manifest.provenance["inputs"]
    told = sorted(_GOLD & seen)
    found = f"made from {', '.join(sorted(seen))}"
    remedy = "gold answers must reach evaluation alone: take them out of the stage's inputs, and remove the run"
    return Finding(not told, f"{found}; {remedy}" if told else found, float(len(told)), 0.0)
