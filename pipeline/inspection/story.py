"""What tables say of one question, a line each: for people who want the story before the rows."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import polars as pl

from pipeline.inspection.reading import Rows
from pipeline.predictions.contenders import in_order
from pipeline.store.artifact import Artifact

_NAMED: Final = 3
"""Ids that a line names before it breaks off; own choice."""

_WAYS: Final = ("rule", "builder")
"""Settings that say which of several ways a stage goes."""


def tell(own: Sequence[Rows], mentions: Sequence[Rows], artifacts: Mapping[str, Artifact]) -> list[str]:
    """Return the lines about a question: from its own rows, from rows that name it, and what cannot be known."""
    lines = []
    for found in own:
        with suppress(pl.exceptions.ColumnNotFoundError):  # columns of older code
            if line := _LINES.get((found.artifact, found.table)):
                lines.append(f"{found.artifact}: {line(found.rows)}{_way(artifacts[found.artifact])}")
    lines += [f"{found.artifact}: {found.meaning} ({_named(found.rows)})" for found in mentions]
    if any(found.artifact == "curated_subset" and found.rows["selected"].any() for found in own):
        drew = {name: artifact.manifest.notes.get("training_questions") for name, artifact in artifacts.items()}
        lines += [
            f"{name}: trained on {n} of the chosen questions; its log does not say which of them at which step"
            for name, n in drew.items()
            if n and name.endswith("_adapter")
        ]
    return lines


def _raw_pool(rows: pl.DataFrame) -> str:
    return f"read from {rows['source'][0]} ({rows['kind'][0]}, domain '{rows['domain'][0]}')"


def _refused(rows: pl.DataFrame) -> str:
    return f"refused: {rows['reason'][0]} ({rows['detail'][0]})"


def _dropped(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    twin = f", of {row['twin']}" if row["twin"] else ""
    alike = f", {row['similarity']:.2f} alike" if row["similarity"] is not None else ""
    return f"left out of the pool: {row['reason']}{twin}{alike}"


def _responses(rows: pl.DataFrame) -> str:
    return f"{rows.height} responses ({_counted(rows['finish_reason'])})"


def _answers(rows: pl.DataFrame) -> str:
    return f"states {_counted(rows['answer'])}"


def _vote(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    label = "" if row["pseudo_answer"] is None else f", pseudo-label {row['pseudo_answer']!r}"
    return f"{row['state']}{label}, vote share {row['vote_share']:.2f}, entropy {row['entropy']:.2f} nats"


def _neurons(rows: pl.DataFrame) -> str:
    sizes, tokens = rows["n_neurons"], rows["n_response_tokens"]
    span = " to ".join(f"{size:,}" for size in (sizes.sort()[0], sizes.sort()[-1]))
    return f"|N| {_mean(sizes):,.0f} ({span}) in {_mean(tokens):.1f} response tokens"


def _beliefs(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    shift = "" if row["belief_shift"] is None else f", {row['belief_shift']:.2f} nats from without"
    return f"with the teacher's examples says {row['informed_answer']!r}{shift}"


def _selection(rows: pl.DataFrame) -> str:
    return str(rows["reason"][0])


def _context(rows: pl.DataFrame) -> str:
    shown = rows["demonstration_ids"][0].to_list()
    return f"its teacher sees {len(shown)} worked examples{': ' * bool(shown)}{', '.join(shown)}"


def _lift(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    return (
        f"{row['lift']:+.2f} ({row['confirmed']:.2f} confirmed with own, {row['confirmed_wrong']:.2f} with wrong ones)"
    )


def _graded(rows: pl.DataFrame) -> str:
    parts = []
    for model in in_order(rows["model"]):
        of_model = rows.filter(pl.col("model") == model)
        parts.append(f"{model} {of_model['correct'].sum()} of {of_model.height} right ({_counted(of_model['answer'])})")
    return "; ".join(parts)


_LINES: Final[Mapping[tuple[str, str], Callable[[pl.DataFrame], str]]] = {
    ("raw_pool", "raw_pool"): _raw_pool,
    ("gold_labels", "gold_labels"): lambda rows: f"right is {rows['gold_answer'][0]!r}",
    ("quarantine", "quarantine"): _refused,
    ("pool", "pool"): lambda rows: f"kept; template {rows['template'][0]!r}",
    ("pool", "dropped"): _dropped,
    ("tests", "in_domain"): lambda _: "held out, in domain",
    ("tests", "out_of_domain"): lambda _: "held out, out of domain",
    ("test_labels", "in_domain"): lambda rows: f"right is {rows['gold_answer'][0]!r}",
    ("test_labels", "out_of_domain"): lambda rows: f"right is {rows['gold_answer'][0]!r}",
    ("rollouts", "rollouts"): _responses,
    ("answers", "answers"): _answers,
    ("pseudo_labels", "pseudo_labels"): _vote,
    ("neuron_scores", "neuron_sizes"): _neurons,
    ("context_beliefs", "context_beliefs"): _beliefs,
    ("curated_subset", "curated_subset"): _selection,
    ("teacher_contexts", "teacher_contexts"): _context,
    ("teacher_lift", "teacher_lift"): _lift,
    ("evaluation", "predictions"): _graded,
}
"""The tables that say something in short; rows of all others are shown as they are."""


def _way(artifact: Artifact) -> str:
    """Return which of several ways a stage went, by its settings."""
    ways = [f"{key} {artifact.manifest.settings[key]}" for key in _WAYS if key in artifact.manifest.settings]
    return f" ({', '.join(ways)})" if ways else ""


def _mean(values: pl.Series) -> float:
    mean: Any = values.mean()
    return float(mean)


def _counted(values: pl.Series) -> str:
    counts = values.fill_null("no answer").value_counts(sort=True)
    return ", ".join(
        f"{value} {n} x" for value, n in counts.sort("count", values.name, descending=[True, False]).rows()
    )


def _named(rows: pl.DataFrame) -> str:
    ids = rows["id"].to_list() if "id" in rows.columns else []
    first = [": ", ", ".join(map(str, ids[:_NAMED])), ", …" * (len(ids) > _NAMED)] if ids else []
    return "".join([f"{rows.height} row{'s' * (rows.height > 1)}", *first])
