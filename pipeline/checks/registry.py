"""The list of checks; all else that knows them takes them from here."""

from typing import Final

from pipeline.checks import curation, data, evaluation, neurons, responses, tables, training
from pipeline.checks.check import Check
from pipeline.stages import STAGES

_TRAINED: Final = ("distilled_adapter", "rival_adapter", "ceiling_adapter")

CHECKS: Final[tuple[Check, ...]] = (
    Check(
        "schemas",
        tuple(spec.name for spec in STAGES),
        "A table lacks columns, types or rows that its manifest declares: it was changed or cut off after it was "
        "written. Materialize the artifact again.",
        tables.schemas,
        "error",
        blocking=True,
    ),
    Check(
        "row_counts",
        tables.RECONCILED,
        "Rows in are not rows kept and rows dropped. Materialize the stage again; if it comes back, report it.",
        tables.row_counts,
        "error",
        blocking=True,
    ),
    Check(
        "refused_share",
        ("raw_pool",),
        "More rows are refused than raw_pool.max_quarantined_share allows, no row is left, or a file is damaged. Mend "
        "what the quarantine lists, or allow more.",
        data.refused_share,
        "error",
        blocking=True,
    ),
    Check(
        "dropped_share",
        ("pool",),
        "Near-duplicates and contamination cost most of the pool: it is a pool of copies, or the comparison takes "
        "questions of one template for copies. Look at the table 'dropped'.",
        data.dropped_share,
    ),
    Check(
        "test_size",
        ("tests",),
        "A test has too few questions: its intervals are wider than what methods differ by.",
        data.test_size,
    ),
    Check(
        "truncation",
        ("rollouts", "base_predictions", "rival_predictions", "distilled_predictions", "ceiling_predictions"),
        "Responses are cut by the length limit before they state an answer. Raise rollouts.max_new_tokens.",
        responses.truncation,
    ),
    Check(
        "abstention",
        ("answers",),
        "Responses state no answer that can be read. Try another instruction, or look at the column 'extraction'.",
        responses.abstention,
    ),
    Check(
        "majorities",
        ("pseudo_labels",),
        "Few questions have a majority, and only those can be worked examples. Sample more, or mend abstentions.",
        responses.majorities,
    ),
    Check(
        "scored_share",
        ("neuron_scores",),
        "More responses could not be scored than neuron_scores.max_unscored_share allows. The reasons stand in the "
        "table 'unscored_rollouts'.",
        neurons.scored_share,
        "error",
        blocking=True,
    ),
    Check(
        "hooks_fired",
        ("neuron_scores",),
        "A layer contributed nothing to any response: its hook did not fire, and the scores mean nothing.",
        neurons.hooks_fired,
        "error",
        blocking=True,
    ),
    Check(
        "support_varies",
        ("neuron_scores",),
        "Nearly all neuron sets have the same size, so |N| cannot rank questions. Set neuron_scores.cut=entries.",
        neurons.support_varies,
    ),
    Check(
        "support_follows_length",
        ("neuron_scores",),
        "The size of neuron sets follows the length of responses; neuron_support would choose by length.",
        neurons.support_follows_length,
    ),
    Check(
        "score_follows_length",
        ("curated_subset",),
        "The selection follows the length of responses, whatever else its rule measures. Compare with rule 'length'.",
        neurons.score_follows_length,
    ),
    Check(
        "selection_size",
        ("curated_subset",),
        "Far fewer questions were chosen than asked for, because the rule could not score the others.",
        curation.selection_size,
        "error",
        blocking=True,
    ),
    Check(
        "context_twins",
        ("teacher_contexts",),
        "A question is shown itself or a near-duplicate of itself, or a question from outside the pool.",
        curation.context_twins,
        "error",
        blocking=True,
    ),
    Check(
        "token_budget",
        ("teacher_contexts",),
        "A teacher's prompt is longer than teacher_contexts.max_teacher_tokens although it holds examples.",
        curation.token_budget,
        "error",
        blocking=True,
    ),
    Check(
        "examples_dropped",
        ("teacher_contexts",),
        "Worked examples were left out because they do not fit. Raise teacher_contexts.max_teacher_tokens.",
        curation.examples_dropped,
    ),
    Check(
        "answer_echo",
        ("teacher_contexts",),
        "Worked examples repeat the target's own vote more than chance would: the teacher is told what the student "
        "says. Take the builder stem_overlap, or balance_answers.",
        curation.answer_echo,
    ),
    Check(
        "lift",
        ("teacher_lift",),
        "The worked examples are not shown to tell the model anything; there may be nothing to distil. "
        "distilled_adapter.require_lift=stop makes it stop here.",
        curation.lift,
    ),
    Check(
        "label_firewall",
        ("teacher_lift", "distilled_adapter", "rival_adapter"),
        "Gold answers are among what the result was made from. Nothing after it may be believed.",
        tables.label_firewall,
        "error",
        blocking=True,
    ),
    Check(
        "finite_steps",
        _TRAINED,
        "Loss, gradient or divergence is no number at some step: the adapter is broken. Lower the learning rate.",
        training.finite_steps,
        "error",
        blocking=True,
    ),
    Check(
        "collapse",
        _TRAINED,
        "The guard saw the training collapse; guard=stop has kept the adapter of the last sound steps. Lower the "
        "learning rate or the steps before you use it.",
        training.collapse,
        "error",
    ),
    Check(
        "in_domain_accuracy",
        ("evaluation",),
        "The distilled model is certainly worse than the untouched one on its own domain. Do not use it.",
        evaluation.in_domain_accuracy,
        "error",
    ),
    Check(
        "out_of_domain_loss",
        ("evaluation",),
        "Accuracy out of domain fell by more than the margin, and certainly. Lower the learning rate or the steps.",
        evaluation.out_of_domain_loss,
        "error",
    ),
    Check(
        "calibration_drift",
        ("evaluation",),
        "The calibration error rose by more than the margin, and certainly: the model is surer than it is right.",
        evaluation.calibration_drift,
    ),
)


def checks_of(stage: str) -> tuple[Check, ...]:
    """Return the checks that judge a stage's result."""
    return tuple(check for check in CHECKS if stage in check.stages)


def describe_checks() -> str:
    """Return the checks as a Markdown table: what is judged, where, what a failure does and means."""
    rows = [
        f"| `{check.name}` | {_shown(check)} | {'stops' if check.blocking else check.severity} | {check.meaning} |"
        for check in CHECKS
    ]
    return "\n".join(["| check | of | failing | what it means |", "|---|---|---|---|", *rows])


def _shown(check: Check) -> str:
    if len(check.stages) == len(STAGES):
        return "every stage"
    return ", ".join(f"`{stage}`" for stage in check.stages)
