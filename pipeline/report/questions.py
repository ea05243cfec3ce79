"""The searchable rows of a run's page: what became of each question, and why; and each test question by model."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import polars as pl

from pipeline.predictions.contenders import in_order
from pipeline.report.blocks import Block, Explorer, Row, Section
from pipeline.report.shown import Shown, cut
from pipeline.store.artifact import Artifact

CHOSEN, NOT_CHOSEN, IN_POOL = "chosen", "not chosen", "in the pool"
_ANSWER: Final = 120
"""Characters of an answer."""


def explorers(shown: Shown, n_rows: int) -> list[Section]:
    """Return the chapter of the searchable rows, at most ``n_rows`` of each kind."""
    rows = _Questions(shown, n_rows).explorer()
    tests = _tests(shown, n_rows)
    lead = "Why was this chosen? What happened to every question: votes, scores, reason, and what its teacher sees."
    blocks: list[Block] = [*([rows] if rows else shown.missing("pool")), *([tests] if tests else [])]
    return [Section("questions", "Every question", lead, blocks)]


class _Questions:
    """Questions of the pool, and rows that did not come so far."""

    def __init__(self, shown: Shown, n_rows: int) -> None:
        self.shown, self.n_rows = shown, n_rows
        self.asked: dict[str, tuple[str, str | None]] = {}

    def explorer(self) -> Explorer | None:
        pool = self.shown.find("pool")
        if pool is None:
            return None
        ranked, n_all = self._ranked(pool), pool.manifest.rows["pool"]
        facts = _join(ranked, self._per_question(ranked["id"]))
        contexts = self._contexts(ranked["id"])
        rows = [self._row(row, contexts.get(row["id"])) for row in facts.iter_rows(named=True)]
        for table in (self._dropped(pool), self._refused()):
            found, n = table
            rows += found
            n_all += n
        left = n_all - len(rows)
        told = (
            f"{left:,} of {n_all:,} rows are left out, so that the page stays small: of the pool those of the highest "
            f"ranks, and then of what was dropped and refused. The tables of the run hold all."
        )
        columns = ["vote share", "score", "rank", "|N|"]
        return Explorer("questions", "Questions", "What became of it", columns, rows, n_all, told if left else "")

    def _ranked(self, pool: Artifact) -> pl.DataFrame:
        """Return as many questions as there is room for, those of the lowest ranks first."""
        questions = pool.scan().select("id", "question", "options", "domain", "kind", "source", "template")
        if subset := self.shown.find("curated_subset"):
            questions = questions.join(subset.scan(), on="id", how="left")
        else:
            nothing = pl.lit(None)
            questions = questions.with_columns(
                selected=nothing.cast(pl.Boolean), score=nothing.cast(pl.Float64), rank=nothing.cast(pl.Int32),
                reason=nothing.cast(pl.String), distance_to_cut=nothing.cast(pl.Float64),
            )  # fmt: skip
        chosen_first = questions.sort("selected", "rank", "id", descending=[True, False, False], nulls_last=True)
        return chosen_first.head(self.n_rows).collect()

    def _per_question(self, ids: pl.Series) -> Iterator[pl.DataFrame]:
        wanted = pl.col("id").is_in(ids.implode())
        if votes := self.shown.find("pseudo_labels"):
            yield votes.scan().filter(wanted).drop("pseudo_index").collect()
        if answers := self.shown.find("answers"):
            stated = pl.col("answer").str.slice(0, _ANSWER).fill_null("(no answer)")
            counts = (
                answers.scan()
                .filter(wanted)
                .group_by("id", stated)
                .len()
                .sort(["len", "answer"], descending=[True, False])
            )
            listed = pl.format("{} x {}", "len", "answer").alias("answers")
            yield counts.group_by("id", maintain_order=True).agg(listed).collect()
        if scores := self.shown.find("neuron_scores"):
            means = pl.col("n_neurons", "n_response_tokens").mean()
            yield scores.scan("neuron_sizes").filter(wanted).group_by("id").agg(means).collect()
        if rollouts := self.shown.find("rollouts"):
            first = rollouts.scan().filter(wanted).group_by("id").agg(pl.col("response").sort_by("sample").first())
            yield first.collect()
        if beliefs := self.shown.find("context_beliefs"):
            yield (
                beliefs.scan()
                .filter(wanted)
                .select("id", "belief_shift", "informed_answer", "informed_share")
                .collect()
            )
        if lift := self.shown.find("teacher_lift"):
            yield lift.scan().filter(wanted).select("id", "lift").collect()

    def _contexts(self, ids: pl.Series) -> dict[str, dict[str, Any]]:
        contexts, pool = self.shown.find("teacher_contexts"), self.shown.find("pool")
        if contexts is None or pool is None:
            return {}
        rows = contexts.scan().filter(pl.col("id").is_in(ids.implode())).drop("prompt", "privileged_context").collect()
        examples = rows["demonstration_ids"].explode(empty_as_null=False).unique()
        told = pool.scan().select("id", "question").filter(pl.col("id").is_in(examples.implode()))
        if votes := self.shown.find("pseudo_labels"):
            told = told.join(votes.scan().select("id", "pseudo_answer"), on="id", how="left")
        self.asked = {row["id"]: (row["question"], row.get("pseudo_answer")) for row in told.collect().to_dicts()}
        return {row["id"]: row for row in rows.to_dicts()}

    def _row(self, row: Mapping[str, Any], context: Mapping[str, Any] | None) -> Row:
        fate = IN_POOL if row["selected"] is None else CHOSEN if row["selected"] else NOT_CHOSEN
        values = [_short(row.get("vote_share")), _short(row["score"]), row["rank"], _short(row.get("n_neurons"))]
        return Row(cut(row["question"]), fate, values, list(self._details(row, context)), row["id"])

    def _details(
        self, row: Mapping[str, Any], context: Mapping[str, Any] | None
    ) -> Iterator[tuple[str, str | list[str]]]:
        if row["reason"]:
            yield "why", row["reason"]
        if row["options"]:
            yield "options", [cut(option, _ANSWER) for option in row["options"]]
        if row.get("answers"):
            yield "answers", row["answers"]
        if row.get("state"):
            vote = f"{row['state'].replace('_', ' ')}: {cut(row['pseudo_answer'], _ANSWER)}"
            yield "vote", f"{vote}; margin {row['margin']:.2f}, entropy {row['entropy']:.2f} nats"
        if row.get("n_response_tokens") is not None:
            yield "neurons", f"|N| {row['n_neurons']:,.1f}, {row['n_response_tokens']:,.1f} response tokens (means)"
        if row.get("belief_shift") is not None:
            given = f"{cut(row['informed_answer'], _ANSWER)} ({row['informed_share']:.0%})"
            yield "with examples", f"{given}; belief shift {row['belief_shift']:.3f} nats"
        if context:
            pairs = zip(context["demonstration_ids"], context["similarities"], strict=True)
            yield "teacher sees", [self._example(name, near) for name, near in pairs] or ["no examples"]
        if row.get("lift") is not None:
            yield "lift", f"{row['lift']:+.3f} of the pairs of responses"
        if row.get("response"):
            yield "first response", cut(row["response"])
        yield "from", " · ".join(filter(None, [row["source"], row["domain"], row["kind"].replace("_", " ")]))

    def _example(self, name: str, near: float | None) -> str:
        question, answer = self.asked[name]
        similarity = "" if near is None else f" (similarity {near:.2f})"
        return f"{cut(question, 300)} → {cut(answer, _ANSWER)}{similarity}"

    def _dropped(self, pool: Artifact) -> tuple[list[Row], int]:
        raw = self.shown.find("raw_pool")
        dropped = pool.scan("dropped").head(self.n_rows)
        if raw:
            dropped = dropped.join(raw.scan().select("id", "question"), on="id", how="left")
        rows = []
        for row in dropped.collect().to_dicts():
            twin = [("because of", f"{row['twin']}, similarity {row['similarity'] or 0:.2f}")] if row["twin"] else []
            question = cut(row.get("question"))
            reason = f"dropped: {row['reason'].replace('_', ' ')}"
            rows.append(Row(question, reason, [None] * 4, [*twin, ("from", row["source"])], row["id"]))
        return rows, pool.manifest.rows["dropped"]

    def _refused(self) -> tuple[list[Row], int]:
        refused = self.shown.find("quarantine")
        if refused is None:
            return [], 0
        rows = [
            Row(cut(row["raw"]), f"refused: {row['reason'].replace('_', ' ')}", [None] * 4,
                [("why", row["detail"]), ("from", f"{row['source']}:{row['line']}")])
            for row in refused.scan().head(self.n_rows).collect().to_dicts()
        ]  # fmt: skip
        return rows, refused.manifest.rows["quarantine"]


def _tests(shown: Shown, n_rows: int) -> Explorer | None:
    """Return test questions with the share of right samples of each model."""
    evaluated, tests = shown.find("evaluation"), shown.find("tests")
    if evaluated is None or tests is None:
        return None
    right = evaluated.scan().group_by("split", "id", "model").agg(pl.col("correct").mean()).collect()
    models = in_order(right["model"])
    wide = right.pivot("model", on_columns=models, index=["split", "id"], values="correct").sort("split", "id")
    asked = pl.concat(
        [tests.read(split).select("id", "question", "options", split=pl.lit(split)) for split in tests.tables]
    )
    table = wide.head(n_rows).join(asked, on=["split", "id"], how="left", maintain_order="left")
    rows = [
        Row(cut(row["question"]), row["split"].replace("_", " "), [_short(row[model]) for model in models],
            [("options", [cut(option, _ANSWER) for option in row["options"] or []] or ["open question"])], row["id"])
        for row in table.to_dicts()
    ]  # fmt: skip
    left = wide.height - len(rows)
    told = f"{left:,} of {wide.height:,} test questions are left out; the tables of the run hold all." if left else ""
    return Explorer("tests", "Test questions: share of samples that are right", "Test", models, rows, wide.height, told)


def _join(table: pl.DataFrame, others: Iterator[pl.DataFrame]) -> pl.DataFrame:
    for other in others:
        table = table.join(other, on="id", how="left", maintain_order="left")
    return table


def _short(value: float | None) -> float | None:
    """Return a figure in four digits: the page is smaller, and people see no more."""
    return None if value is None or math.isnan(value) else float(f"{value:.4g}")
