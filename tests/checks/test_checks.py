"""Each check on a result that passes and on one that does not."""

import math
import re

import pytest

from pipeline.checks.check import Evidence
from pipeline.checks.config import ChecksConfig
from pipeline.checks.judge import FAILED, PASSED, judge, read_checks, require_sound
from pipeline.checks.registry import CHECKS, checks_of, describe_checks
from pipeline.config import Config
from pipeline.errors import CheckError
from pipeline.paths import PROJECT_ROOT
from pipeline.stages import STAGES, stage_of


def question(number, **row):
    return {"id": str(number), "group": str(number)} | row


def refused(reason="too_long", read=20):
    kept = read - 1
    notes = {"read": read, "kept": kept, "refused": 1, "refused_share": 1 / read}
    return [
        ("raw_pool", {"raw_pool": [question(n) for n in range(kept)]}, notes),
        ("quarantine", {"quarantine": [{"reason": reason}]}, notes),
    ]


def pool(n_kept, *reasons):
    raw = [question(n) for n in range(n_kept + len(reasons))]
    dropped = [{"id": str(n_kept + n), "reason": reason} for n, reason in enumerate(reasons)]
    empty = {"contamination": [], "in_domain_test": [], "out_of_domain_test": []}
    return [
        ("raw_pool", {"raw_pool": raw}, {}),
        ("pool", {"pool": raw[:n_kept], "dropped": dropped, **empty}, {}),
    ]


def held_out(in_domain, out_of_domain):
    splits = {"in_domain": in_domain, "out_of_domain": out_of_domain}
    return [("tests", {split: [question(n) for n in range(size)] for split, size in splits.items()}, {})]


def rollouts(cut, total=10):
    return [("rollouts", {"rollouts": []}, {"finish_reasons/rollouts": {"stop": total - cut, "length": cut}})]


def answers(share):
    return [("answers", {"answers": [question(0)]}, {"abstention_share": share})]


def votes(*states):
    return [("pseudo_labels", {"pseudo_labels": [question(n, state=state) for n, state in enumerate(states)]}, {})]


def sizes(rows, rho=0.1, scored=None, **notes):
    """Return neuron scores of sizes and layers' scores."""
    table = [question(n, n_neurons=size, layer_scores=layers) for n, (size, layers) in enumerate(rows)]
    others = {name: [] for name in ("neuron_scores", "rationale_scores", "stem_scores", "stem_states")}
    notes = {
        "rollouts": len(rows),
        "scored": len(rows) if scored is None else scored,
        "unscored": {},
        "rank_correlation_of_support": {"n_response_tokens": rho},
        **notes,
    }
    return [("neuron_scores", {**others, "neuron_sizes": table, "unscored_rollouts": []}, notes)]


def subset(n_selected, total=10, **notes):
    rows = [question(n, selected=n < n_selected) for n in range(total)]
    return [("curated_subset", {"curated_subset": rows}, {"score_vs_length": 0.1, **notes})]


def contexts(shown, n_tokens=9, n_dropped=0, **notes):
    row = question(0, demonstration_ids=shown, n_teacher_tokens=n_tokens, n_dropped=n_dropped)
    echo = {"answer_echo": 0.2, "answer_echo_by_chance": 0.15}
    members = [question(0, group="0"), question(1, group="0"), question(2)]
    return [
        *pool(0)[:1],
        ("pool", {"pool": members}, {}),
        ("teacher_contexts", {"teacher_contexts": [row]}, echo | notes),
    ]


def lift(outcome):
    notes = {"outcome": outcome, "verdict": f"{outcome}: because.", "lift": {"low": 0.1}}
    return [("teacher_lift", {"teacher_lift": []}, notes)]


def log(**row):
    return [("distilled_adapter", {"training_log": [{"step": 1} | row]}, {})]


def adapter(**notes):
    return [("distilled_adapter", {"training_log": []}, notes)]


def evaluated(metric, split, value, low, high):
    row = {"model": "distilled - untouched", "metric": metric, "split": split, "value": value, "low": low, "high": high}
    return [("evaluation", {"metrics": [row], "predictions": []}, {})]


READ = [("raw_pool", {"raw_pool": [question(0)]}, {}), ("curated_subset", {"curated_subset": []}, {}, ["raw_pool"])]
FED = [
    *READ,
    ("gold_labels", {"gold_labels": []}, {}),
    ("teacher_contexts", {"teacher_contexts": []}, {}, ["gold_labels"]),
]

CASES = {
    # check: stage, what passes, what fails, what the message says
    "row_counts": ("pool", pool(2, "contaminated"), [*pool(3)[:1], *pool(2)[1:]], "3 and 2; rows were lost"),
    "refused_share": ("raw_pool", refused(), refused(read=4), "1 of 4 rows refused.*max_quarantined_share"),
    "dropped_share": ("pool", pool(2, "near_duplicate", "in_domain_test"), pool(1, *["near_duplicate"] * 2), "2 of 3"),
    "test_size": ("tests", held_out(100, 120), held_out(100, 99), "100 questions in domain, 99 .*tests.limit"),
    "truncation": ("rollouts", rollouts(2), rollouts(3), "3 of 10 .*max_new_tokens"),
    "abstention": ("answers", answers(0.2), answers(0.3), "30.0% .*instruction"),
    "majorities": ("pseudo_labels", votes("majority", "tie"), votes("majority", "tie", "tie"), "1 of 3 .*n_samples"),
    "scored_share": ("neuron_scores", sizes([(3, [1])] * 2), sizes([(3, [1])] * 3, scored=1), "max_unscored_share"),
    "hooks_fired": ("neuron_scores", sizes([(3, [1, 0]), (2, [0, 1])]), sizes([(3, [1, 0])]), r"layers \[1\] were not"),
    "support_varies": ("neuron_scores", sizes([(3, [1]), (2, [1])]), sizes([(3, [1])] * 5), "5 of 5 .*cut=entries"),
    "support_follows_length": ("neuron_scores", sizes([]), sizes([], 0.6, warning="Longer."), "Longer"),
    "score_follows_length": ("curated_subset", subset(1), subset(1, score_vs_length=0.7, warning="Long."), "Long"),
    "selection_size": ("curated_subset", subset(1), subset(0), "0 of 10 questions chosen, 2 asked for: rule"),
    "context_twins": (
        "teacher_contexts",
        contexts(["2"]),
        contexts(["2", "1", "7"]),
        "of 3 .* 1 are the question .*, 1",
    ),
    "token_budget": ("teacher_contexts", contexts(["2"]), contexts(["2"], n_tokens=5000), "5000 tokens of 2048"),
    "examples_dropped": ("teacher_contexts", contexts(["2"] * 4, n_dropped=1), contexts(["2"], n_dropped=1), "1 of 2"),
    "answer_echo": ("teacher_contexts", contexts(["2"]), contexts(["2"], answer_echo=0.9, warning="Told."), "Told"),
    "lift": ("teacher_lift", lift("go"), lift("no lift"), "no lift: because. Take another .*builder"),
    "label_firewall": (
        "teacher_lift",
        [*READ, ("teacher_lift", {"teacher_lift": []}, {}, ["curated_subset"])],
        [*FED, ("teacher_lift", {"teacher_lift": []}, {}, ["teacher_contexts"])],
        "made from gold_labels, teacher_contexts; gold answers must reach evaluation alone",
    ),
    "finite_steps": ("distilled_adapter", log(loss=1.0, kl_to_base=None), log(loss=math.nan), "1 of 1 .*learning_rate"),
    "collapse": (
        "distilled_adapter",
        adapter(),
        adapter(stopped_at=9, stopped_because="entropy fell", kept_step=4),
        "step 9, and the adapter of step 4 was kept: entropy fell; lower distilled_adapter.learning_rate",
    ),
    "in_domain_accuracy": (
        "evaluation",
        evaluated("avg_at_k", "in_domain", -0.1, -0.3, 0.1),
        evaluated("avg_at_k", "in_domain", -0.1, -0.15, -0.05),
        "do not use this adapter",
    ),
    "out_of_domain_loss": (
        "evaluation",
        evaluated("avg_at_k", "out_of_domain", -0.02, -0.03, -0.01),
        evaluated("avg_at_k", "out_of_domain", -0.04, -0.06, -0.02),
        r"-0.040 \[-0.060, -0.020\]; out-of-domain accuracy was lost",
    ),
    "calibration_drift": (
        "evaluation",
        evaluated("ece_vote", "in_domain", 0.02, 0.01, 0.03),
        evaluated("ece_vote", "in_domain", 0.2, 0.1, 0.3),
        "calibration got worse",
    ),
}


@pytest.fixture
def found(run, put):
    """Return what a check finds of artifacts that are put into a run, each with tables, notes and inputs."""

    def find(name, stage, artifacts):
        for artifact, tables, notes, *inputs in artifacts:
            put(run, artifact, notes=notes, inputs=inputs[0] if inputs else (), **tables)
        section = getattr(Config(), stage_of(stage).key)
        (check,) = [check for check in checks_of(stage) if check.name == name]
        return check.judge(Evidence(stage, section, ChecksConfig(), run))

    return find


@pytest.mark.parametrize("name", CASES)
def test_a_check_tells_a_sound_result_from_one_that_is_not(found, name):

    stage, sound, unsound, message = CASES[name]
    assert found(name, stage, sound).passed
    finding = found(name, stage, unsound)
    assert not finding.passed
    assert re.search(message, finding.message), finding.message
    assert finding.measured is None or finding.limit is None or finding.measured != finding.limit


def test_every_check_has_a_case():
    assert len(CHECKS) >= 20
    assert {check.name for check in CHECKS} == {*CASES, "schemas"}
    assert {stage for check in CHECKS for stage in check.stages} == {spec.name for spec in STAGES}


def test_a_table_that_is_not_as_declared_is_found(found, run):
    assert found(
        "schemas", "tests", [*held_out(1, 1), ("test_labels", {"in_domain": [], "out_of_domain": []}, {})]
    ).passed
    path = run.require("tests").path("in_domain")
    longer = found("schemas", "tests", held_out(2, 1))
    assert longer.passed
    (run.require("tests").path("in_domain")).write_bytes(path.read_bytes())
    assert "in_domain.parquet has 1 rows, not 2: materialize 'tests' again" in found("schemas", "tests", []).message
    path = run.require("tests").path("in_domain")
    path.write_bytes(run.require("test_labels").path("in_domain").read_bytes())
    assert "does not have the declared schema" in found("schemas", "tests", []).message


def test_what_was_left_out_is_not_judged(found):
    assert (
        found("finite_steps", "ceiling_adapter", [("ceiling_adapter", {"training_log": []}, {"skipped": "x"})]) is None
    )
    assert found("collapse", "ceiling_adapter", []) is None


def test_verdicts_stand_in_the_run_and_a_blocking_one_stops(found, run, caplog):
    section = Config().pool
    found("dropped_share", "pool", pool(1, *["near_duplicate"] * 2))
    verdicts = judge("pool", section, ChecksConfig(), run)
    table = {row["check"]: row for row in read_checks(run).iter_rows(named=True)}
    assert {name: row["state"] for name, row in table.items()} == {
        "schemas": PASSED,
        "row_counts": PASSED,
        "dropped_share": FAILED,
    }
    assert table["dropped_share"]["measured"] == pytest.approx(2 / 3)
    assert "pool: check dropped_share: 2 of 3 questions dropped" in caplog.text
    require_sound("pool", verdicts)  # a warning stops nothing
    judge("pool", section, ChecksConfig(max_dropped_share=0.7), run)
    assert read_checks(run)["state"].to_list() == [PASSED] * 3  # of the last time only

    found("row_counts", "pool", pool(4)[:1])
    with pytest.raises(CheckError, match=r"pool: check row_counts failed: .*4 and 3"):
        require_sound("pool", judge("pool", section, ChecksConfig(), run))


def test_a_damaged_file_is_refused_whatever_share_is_allowed(found):
    finding = found("refused_share", "raw_pool", refused("damaged_file", read=1000))
    assert not finding.passed
    assert "replace the damaged file" in finding.message


def test_the_operations_page_lists_the_checks():
    assert describe_checks() in (PROJECT_ROOT / "docs/operations.md").read_text(encoding="utf-8")
