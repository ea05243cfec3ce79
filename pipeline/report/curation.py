"""The chapters of a run's page from the pool to the teacher's examples."""

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from pipeline.deduplication.statistics import fates_of
from pipeline.neurons.plot import layer_profile
from pipeline.report.blocks import Block, Fold, Plot, Plots, Remark, Section, Table, Tile, Tiles, table_of
from pipeline.report.charts import bars, correlations, histogram, profile, scatter
from pipeline.report.examples import context_cards, selection_cards
from pipeline.report.shown import Shown, column, counts_of, cut, share, warnings_of

_TOP: Final = 12
"""Bars of a picture, rows of a table; the searchable rows hold more."""
_POINTS: Final = 1_000
"""Of a picture."""
_RAW: Final = 200
"""Characters of a refused row or of a cell."""
_CORRELATED: Final = {
    "score_vs_length": "response length",
    "score_vs_vote_share": "vote share",
    "score_vs_entropy": "entropy of the votes",
    "score_vs_self_certainty": "self-certainty",
    "n_response_tokens": "response length",
    "self_certainty": "self-certainty",
    "mean_logprob": "mean log-probability",
}


def curation(shown: Shown) -> list[Section]:
    """Return the chapters in the order of the data."""
    return [_pool(shown), _votes(shown), _neurons(shown), _selection(shown), _contexts(shown)]


def _pool(shown: Shown) -> Section:
    raw, pool, refused = shown.find("raw_pool"), shown.find("pool"), shown.find("quarantine")
    blocks: list[Block] = [*shown.missing("raw_pool"), *shown.missing("pool")]
    tiles: list[Tile] = []
    fates: dict[str, float] = {}
    if raw and refused:
        notes = raw.manifest.notes
        reasons = counts_of(refused, "reason")
        fates |= {f"refused: {reason.replace('_', ' ')}": count for reason, count in reasons.items()}
        tiles += [
            Tile("rows read", f"{notes['read']:,}"),
            Tile("refused", f"{notes['refused']:,}", share(notes["refused"], notes["read"])),
        ]
    if pool and raw:
        dropped = pool.manifest.rows["dropped"]
        kept = pool.scan().select("id").collect()
        found = fates_of(kept, pool.read("dropped")).slice(1)
        fates |= {f"dropped: {reason.replace('_', ' ')}": count for reason, count in found.iter_rows()}
        tiles += [
            Tile("dropped", f"{dropped:,}", share(dropped, raw.manifest.rows["raw_pool"]) + " of the questions"),
            Tile("in the pool", f"{kept.height:,}", f"{pool.manifest.notes['stem families']:,} stem families"),
        ]
        fates = {"in the pool": kept.height, **fates}
    if tiles:
        blocks.append(Tiles(tiles))
    plots = [Plot("fates", "What became of the rows", bars(fates, "rows"))] if fates else []
    if questions := pool or raw:
        domains = counts_of(questions, "domain")
        plots += [
            Plot("domains", _first("Domains", len(domains)), bars(dict(list(domains.items())[:_TOP]), "questions")),
            Plot(
                "lengths",
                "Length of the questions",
                histogram({"": column(questions, pl.col("question").str.len_chars())}, "characters"),
            ),
        ]
    blocks.append(Plots(plots))
    return Section("pool", "What came in", "Rows as they were read, and why some are not in the pool.", [
        *blocks, *(_refused(shown)), *(_copies(pool.manifest.notes) if pool else ())
    ])  # fmt: skip


def _first(title: str, n: int) -> str:
    return title if n <= _TOP else f"{title}, the first {_TOP} of {n:,}"


def _refused(shown: Shown) -> list[Block]:
    refused = shown.find("quarantine")
    if refused is None or not refused.manifest.rows["quarantine"]:
        return []
    first = (
        refused.scan()
        .group_by("reason", maintain_order=True)
        .agg(
            pl.len().alias("rows"),
            pl.format("{}:{}", pl.col("source").first(), pl.col("line").first()).alias("first at"),
            pl.col("detail").first().alias("what is wrong"),
            pl.col("raw").first().str.slice(0, _RAW).alias("as it was read"),
        )
        .sort(["rows", "reason"], descending=[True, False])
        .collect()
    )
    return [table_of("Refused rows by reason, the first of each as it was read", first)]


def _copies(notes: Mapping[str, Any]) -> list[Block]:
    tables = {
        "most copied questions": "Questions with the most near-duplicates",
        "contamination": "Questions that evaluation sets hold, with what they share",
        "largest stem families": "Largest stem families: questions made of one template",
    }
    found = [table_of(title, _cut_rows(notes[key])) for key, title in tables.items() if notes.get(key)]
    return [Fold("Near-duplicates, contamination and templates", found)] if found else []


def _cut_rows(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{k: cut(v, _RAW) if isinstance(v, str) else v for k, v in row.items()} for row in rows])


def _votes(shown: Shown) -> Section:
    blocks: list[Block] = [block for name in ("rollouts", "answers", "pseudo_labels") for block in shown.missing(name)]
    plots, tiles = [], []
    if rollouts := shown.find("rollouts"):
        reasons = counts_of(rollouts, "finish_reason")
        n = rollouts.manifest.rows["rollouts"]
        tiles += [
            Tile("responses", f"{n:,}", f"{shown.settings('rollouts').get('n_samples', '?')} per question"),
            Tile("cut by the length limit", share(reasons.get("length", 0), n)),
        ]
        lengths = column(rollouts, pl.col("response_ids").list.len())
        plots.append(Plot("responses", "Length of the responses", histogram({"": lengths}, "tokens")))
    if answers := shown.find("answers"):
        tiles.append(Tile("without an answer", f"{100 * answers.manifest.notes['abstention_share']:.1f} %"))
        found = dict(list(counts_of(answers, "extraction").items())[:_TOP])
        plots.append(Plot("extraction", "How answers were read", bars(found, "responses")))
    if votes := shown.find("pseudo_labels"):
        states = {state.replace("_", " "): count for state, count in counts_of(votes, "state").items()}
        n = votes.manifest.rows["pseudo_labels"]
        tiles.append(Tile("questions with a majority", f"{states.get('majority', 0):,}", f"of {n:,}"))
        shares = column(votes, pl.col("vote_share"))
        plots[:0] = [
            Plot("vote_share", "Vote share of the leading answer", histogram({"": shares}, "share of the responses")),
            Plot("states", "Votes", bars(states, "questions")),
        ]
    lead = "The model answers each question several times. The vote is its pseudo-label; no gold answer is read."
    return Section("votes", "Answers and votes", lead, [*blocks, *([Tiles(tiles)] if tiles else []), Plots(plots)])


def _neurons(shown: Shown) -> Section:
    lead = "Which MLP neurons carry each response: the contribution of a neuron to the tokens that were produced."
    scores = shown.find("neuron_scores")
    if scores is None:
        return Section("neurons", "Neurons", lead, shown.missing("neuron_scores"))
    notes = scores.manifest.notes
    tiles = [
        Tile("responses scored", f"{notes['scored']:,}", f"of {notes['rollouts']:,}"),
        Tile("neurons used by any response", f"{100 * notes['model_utilization_index']:.1f} %"),
    ]
    sizes = column(scores, pl.col("n_neurons").filter(pl.col("score_sum") > 0), "neuron_sizes")
    plots = [
        Plot("support", "Size of the neuron sets, |N|", histogram({"": sizes}, "neurons per response")),
        Plot("profile", "Contributions by layer", profile(layer_profile(scores), "layer", "mean share")),
        *_correlated("neuron_confounds", "What |N| goes along with", notes.get("rank_correlation_of_support", {})),
    ]
    unscored = [Remark(f"Not scored: {notes['unscored']}.")] if notes["unscored"] else []
    return Section(
        "neurons", "Neurons", lead, [Tiles(tiles), *unscored, *warnings_of(shown, scores.name), Plots(plots)]
    )


def _correlated(name: str, title: str, rho: Mapping[str, float | None]) -> list[Plot]:
    known = {_CORRELATED.get(key, key): value for key, value in rho.items() if value is not None}
    described = "Rank correlation (Spearman). Near ±1 the measure says little else than that."
    return [Plot(name, title, correlations(known), described)] if known else []


def _selection(shown: Shown) -> Section:
    lead = "Every question gets a score; the lowest are chosen until the budget is spent. Each row says why."
    subset = shown.find("curated_subset")
    if subset is None:
        return Section("selection", "Selection", lead, shown.missing("curated_subset"))
    rows, settings = subset.read(), shown.settings("curated_subset")
    chosen = rows.filter("selected")
    budget = settings.get("count") or f"{100 * settings.get('fraction', 0):g} %"
    tiles = [
        Tile("training questions", f"{chosen.height:,}", f"of {rows.height:,}"),
        Tile("rule", str(settings.get("rule", "?")).replace("_", " "), f"budget {budget}"),
        Tile("cannot be scored", f"{rows['score'].null_count():,}"),
    ]
    parts = {"chosen": chosen["score"], "not chosen": rows.filter(~pl.col("selected"))["score"]}
    known = {name: values for name, values in parts.items() if values.drop_nulls().len()}
    scores = [Plot("scores", "Scores, lowest first", histogram(known, "score"))] if known else []
    rho = {key: value for key, value in subset.manifest.notes.items() if key.startswith("score_vs_")}
    plots = [*scores, *_correlated("confounds", "What the score goes along with", rho)]
    return Section(
        "selection",
        "Selection",
        lead,
        [Tiles(tiles), *warnings_of(shown, subset.name), Plots(plots), *selection_cards(shown, rows)],
    )


def _contexts(shown: Shown) -> Section:
    lead = "The teacher is the same model with worked examples before the question. Do they tell it anything?"
    contexts = shown.find("teacher_contexts")
    blocks = [*shown.missing("teacher_contexts")]
    if contexts:
        notes, settings = contexts.manifest.notes, shown.settings("teacher_contexts")
        tiles = [
            Tile("examples by", str(settings.get("builder", "?")).replace("_", " ")),
            Tile("examples per question", str(settings.get("n_demonstrations", "?"))),
            Tile("left out for length", f"{notes['demonstrations_dropped']:,}"),
        ]
        echo = {label: notes[key] for key, label in _ECHO.items() if key in notes}
        tokens = column(contexts, pl.col("n_teacher_tokens"))
        near = column(contexts, pl.col("similarities").explode(empty_as_null=False))
        plots = [Plot("echo", "Answer echo", bars(echo, "share of the examples"), _ECHO_TOLD)] if echo else []
        plots.append(Plot("teacher_tokens", "Length of the teacher's prompts", histogram({"": tokens}, "tokens")))
        if near.len():
            plots.append(Plot("similarity", "How near the examples are", histogram({"": near}, "similarity")))
        blocks += [Tiles(tiles), *warnings_of(shown, contexts.name), Plots(plots), *context_cards(shown)]
    return Section("contexts", "Teacher's examples", lead, [*blocks, *_trials(shown)])


_ECHO: Final = {
    "answer_echo": "answer",
    "answer_echo_by_chance": "answer, by chance",
    "letter_echo": "letter",
    "letter_echo_by_chance": "letter, by chance",
}
_ECHO_TOLD: Final = (
    "How often an example states the pseudo-answer of the question that it is shown for. Well above chance, the "
    "teacher is told the student's vote."
)


def _trials(shown: Shown) -> list[Block]:
    """Return what examples did to answers: of training questions before the training, and of the whole pool."""
    blocks = [*shown.missing("teacher_lift"), *shown.missing("context_beliefs")]
    plots, folds = [], []
    if lift := shown.find("teacher_lift"):
        notes, axes = lift.manifest.notes, ("with one set wrong (share)", "by two right sets (share)")
        blocks.append(Remark(f"Do they help? Tried without gold before the training: {notes['verdict']}"))
        points = lift.scan().select("confirmed_wrong", "confirmed", "id").head(_POINTS).collect()
        told = "A point is a question: how often independent examples confirm a new answer. Above the line they help."
        plots += [Plot("lift", "New answers that are confirmed", scatter(points, *axes), told)] if points.height else []
        if moved := notes.get("movement"):
            header = [name.replace("_", " ") for name in moved[0]]
            rows = [[str(cell).replace("_", " ") for cell in row.values()] for row in moved]
            caption = "Answers without examples, with own, further and wrong ones"
            folds.append(Fold("How answers move with examples", [Table(caption, header, rows)]))
    if beliefs := shown.find("context_beliefs"):
        shifts = column(beliefs, pl.col("belief_shift"))
        told = "How far examples move the answers to every question of the pool: what some selection rules go by."
        spec = histogram({"": shifts}, "Jensen-Shannon divergence (nats)", height=300)
        plots += [Plot("beliefs", "Belief shift", spec, told)] if shifts.len() else []
    return [*blocks, *([Plots(plots)] if plots else []), *folds]
