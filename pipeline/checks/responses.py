"""Do responses end, state answers, and agree?"""

import polars as pl

from pipeline.checks.check import Evidence, Finding, at_least, at_most
from pipeline.generation.generator import LENGTH

_NOTE = "finish_reasons/"


def truncation(evidence: Evidence) -> Finding | None:
    """Judge the share of responses that the length limit cut."""
    reasons = [counts for note, counts in evidence.notes.items() if note.startswith(_NOTE)]
    total = sum(sum(counts.values()) for counts in reasons)
    if not total:
        return None
    cut = sum(counts.get(LENGTH, 0) for counts in reasons)
    return at_most(
        cut / total,
        evidence.limits.max_truncated,
        f"{cut} of {total} responses were cut by the length limit",
        "raise rollouts.max_new_tokens (a model that thinks first needs thousands), or let it answer at once with "
        "model.chat_template={enable_thinking: false}",
    )


def abstention(evidence: Evidence) -> Finding | None:
    """Judge the share of responses without a readable answer."""
    if not evidence.rows("answers"):
        return None
    share = evidence.notes["abstention_share"]
    return at_most(
        share,
        evidence.limits.max_abstention,
        f"{share:.1%} of the responses state no answer that can be read",
        "look at the column 'extraction' of 'answers', and try another rollouts.instruction or "
        "rollouts.open_instruction, or an empty one",
    )


def majorities(evidence: Evidence) -> Finding | None:
    """Judge the share of questions with a majority answer."""
    total = evidence.rows("pseudo_labels")
    if not total:
        return None
    voted = evidence.own.scan().filter(pl.col("state") == "majority").select(pl.len()).collect().item()
    return at_least(
        voted / total,
        evidence.limits.min_majority_share,
        f"{voted} of {total} questions have a majority",
        "the others can be no worked examples: raise rollouts.n_samples, lower pseudo_labels.min_votes, or mend what "
        "makes responses abstain",
    )
