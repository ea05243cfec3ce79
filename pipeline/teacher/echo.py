"""Does the context tell the student's vote? How often examples state the target's own pseudo-answer, against chance.

Neurons are scored towards the token produced, so the sets of responses overlap where the responses conclude the same.
A teacher whose examples all end as the student's majority does may repeat it without any reasoning.
"""

from typing import Any, Final

import polars as pl

MUCH: Final = 0.1
"""Excess of an echo over chance that is warned of; own choice, well above the noise of a few hundred pairs (.03)."""
_WARNINGS: Final = {
    "answer_echo": "{answer_echo:.0%} of the examples state the pseudo-answer of the question that they are shown for, "
    "{answer_echo_by_chance:.0%} would by chance: the teacher is told the student's vote. "
    "teacher_contexts.builder=stem_overlap or teacher_contexts.balance_answers=true makes it less.",
    "letter_echo": "{letter_echo:.0%} of the examples show their pseudo-answer at the letter of the question's own, "
    "{letter_echo_by_chance:.0%} would by chance: the teacher is told the letter of the student's vote. "
    "teacher_contexts.builder=stem_overlap or rollouts.permute_options=true makes it less.",
}


def answer_echo(
    contexts: pl.DataFrame, pseudo_labels: pl.DataFrame, pool: pl.DataFrame, rollouts: pl.LazyFrame
) -> dict[str, Any]:
    """Return the notes of the stage: echo by the answers' text and by their letters, each with its value by chance.

    Args:
        contexts: Of schema TEACHER_CONTEXTS.
        pseudo_labels: Votes of the pool, of schema PSEUDO_LABELS.
        pool: Questions, of schema RAW_POOL: the order of options that targets show.
        rollouts: Of schema ROLLOUTS: the order of options that demonstrations show.

    ``answer_echo`` is the share of pairs of a target with a majority and a demonstration whose pseudo-answers are the
    same text. ``letter_echo`` is the share, among pairs of questions with options, whose prompts show the pseudo-answer
    at the same letter. ``..._by_chance`` is what is expected if each demonstration were drawn from all other questions
    of that kind with a majority. ``warning`` is there if an echo is larger than that by more than ``MUCH``. Figures of
    which there are no pairs are left out.
    """
    pairs = contexts.select("id", example_id="demonstration_ids").explode("example_id", empty_as_null=False)
    majority = pseudo_labels.drop_nulls("representative").select(
        "id", "pseudo_answer", "pseudo_index", "representative"
    )
    texts = majority.select("id", target="pseudo_answer", example="pseudo_answer")
    notes: dict[str, Any] = _echo("answer_echo", pairs, texts)
    notes |= _echo("letter_echo", pairs, _letters(majority, pool, rollouts))
    told = [name for name in _WARNINGS if notes.get(name, 0) > notes.get(f"{name}_by_chance", 0) + MUCH]
    if told:
        notes["warning"] = " ".join(_WARNINGS[name].format(**notes) for name in told)
    return notes


def _letters(majority: pl.DataFrame, pool: pl.DataFrame, rollouts: pl.LazyFrame) -> pl.DataFrame:
    """Return, per question with options, where its own prompt and its representative rollout's show the answer."""
    chosen = majority.lazy().drop_nulls("pseudo_index")
    asked = chosen.join(pool.lazy().select("id", "permutation"), on="id")
    shown = chosen.join(rollouts.select("id", "permutation", representative="sample"), on=["id", "representative"])
    target, example = (
        orders.select("id", "pseudo_index", "permutation", letter=pl.int_ranges(pl.col("permutation").list.len()))
        .explode("permutation", "letter", empty_as_null=False)
        .filter(pl.col("permutation") == pl.col("pseudo_index"))
        .select("id", "letter")
        for orders in (asked, shown)
    )
    return target.rename({"letter": "target"}).join(example.rename({"letter": "example"}), on="id").collect()


def _echo(name: str, pairs: pl.DataFrame, stated: pl.DataFrame) -> dict[str, float]:
    """Return the share of pairs that agree in what is ``stated`` by ``target`` and ``example``, and that by chance."""
    counts = stated.group_by(target="example").len("n_alike")
    agree = pl.col("target") == pl.col("example")
    others = pl.col("n_alike").fill_null(0).cast(pl.Int64) - agree  # that state the same, the target itself left out
    targets = stated.join(counts, on="target", how="left").select("id", "target", n_alike=others)
    met = pairs.join(targets, on="id").join(stated.select("example", example_id="id"), on="example_id")
    if met.is_empty():
        return {}
    by_chance = met["n_alike"].sum() / (len(met) * max(1, len(stated) - 1))
    return {name: met.select(agree.mean()).item(), f"{name}_by_chance": by_chance}
