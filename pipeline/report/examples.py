"""Examples of the data in a run's page."""

from typing import Final

import polars as pl

from pipeline.report.blocks import Block, Card, Cards
from pipeline.report.shown import Shown, cut

_N_EACH: Final = 3
_CHARS: Final = 280
"""Characters of a question."""
_ANSWER: Final = 60
"""Characters of an answer."""


def selection_cards(shown: Shown, rows: pl.DataFrame) -> list[Block]:
    """Return questions at the top and on both sides of the cut; ``rows`` are of schema CURATED_SUBSET."""
    ranked = rows.drop_nulls("rank").sort("rank", "id")
    inside, outside = ranked.filter("selected"), ranked.filter(~pl.col("selected"))
    groups = {
        "Chosen first": inside.head(_N_EACH),
        "Chosen last": inside.slice(_N_EACH).tail(_N_EACH),
        "Just not chosen": outside.head(_N_EACH),
    }
    return [Cards(title, _cards(shown, group)) for title, group in groups.items() if group.height]


def _cards(shown: Shown, group: pl.DataFrame) -> list[Card]:
    known = with_votes(shown, group["id"])
    cards = []
    for row in group.join(known, on="id", how="left", maintain_order="left").iter_rows(named=True):
        facts = [_vote(row["pseudo_answer"], row["vote_share"]), f"rank {row['rank']}"]
        cards.append(Card(cut(row["question"], _CHARS), facts, [("Why", row["reason"])]))
    return cards


def context_cards(shown: Shown) -> list[Block]:
    """Return some training questions with the examples that their teacher sees."""
    contexts = shown.find("teacher_contexts")
    if contexts is None:
        return []
    first = contexts.scan().filter(pl.col("demonstration_ids").list.len() > 0).head(_N_EACH).collect()
    examples = first["demonstration_ids"].explode(empty_as_null=False)
    known = {row["id"]: row for row in with_votes(shown, pl.concat([first["id"], examples])).to_dicts()}
    cards = []
    for row in first.iter_rows(named=True):
        asked = known[row["id"]]
        shown_examples = zip(row["demonstration_ids"], row["similarities"], strict=True)
        lines = [(f"Example {n}", _told(known[name], near)) for n, (name, near) in enumerate(shown_examples, start=1)]
        facts = [_vote(asked["pseudo_answer"], asked["vote_share"]), f"{row['n_teacher_tokens']} tokens"]
        cards.append(Card(cut(asked["question"], _CHARS), facts, lines))
    return [Cards("What the teacher sees before some questions", cards)] if cards else []


def _vote(answer: str | None, share: float | None) -> str:
    leading = f"{share or 0:.0%} of the responses"
    return f"no majority ({leading})" if answer is None else f"vote {cut(answer, _ANSWER)} ({leading})"


def _told(example: dict[str, str | None], similarity: float | None) -> str:
    near = "" if similarity is None else f" (similarity {similarity:.2f})"
    return f"{cut(example['question'], _CHARS)} → {cut(example['pseudo_answer'], _ANSWER)}{near}"


def with_votes(shown: Shown, ids: pl.Series) -> pl.DataFrame:
    """Return id, question, pseudo_answer and vote_share of pool questions."""
    wanted = ids.unique()
    questions = shown.run.require("pool").scan().select("id", "question").filter(pl.col("id").is_in(wanted.implode()))
    votes = shown.run.require("pseudo_labels").scan().select("id", "pseudo_answer", "vote_share")
    return questions.join(votes, on="id", how="left").sort("id").collect()
