"""What is made again after a change, and what is not: every setting and every room, stated as a table.

Stages named here are those that change of themselves; stages after them run again where the content of their inputs
turns out to differ.
"""

import shutil
from typing import get_args

import pytest

from pipeline.adapters.config import RivalAdapterConfig
from pipeline.chain import determining_settings
from pipeline.config import Config
from pipeline.deduplication.config import Comparison
from pipeline.fingerprint import reachable_code
from pipeline.paths import PROJECT_ROOT
from pipeline.stages import STAGES
from pipeline.teacher.config import TeacherContextsConfig

SAMPLING = {
    "proposed_questions",
    "rollouts",
    "context_beliefs",
    "teacher_lift",
    "base_predictions",
    "rival_predictions",
    "distilled_predictions",
    "ceiling_predictions",
}
PREDICTIONS = {"base_predictions", "rival_predictions", "distilled_predictions", "ceiling_predictions"}
ADAPTERS = {"distilled_adapter", "rival_adapter", "ceiling_adapter"}
LAYOUT = {"raw_pool", "pool", "tests"}
OWN = {spec.key: {spec.name} for spec in STAGES} | {"predictions": PREDICTIONS, "checks": set()}

REMADE: dict[str, set[str]] = {
    # The layout of a pool is also how held-out questions are read.
    **{f"raw_pool.{name}": LAYOUT for name in Config().raw_pool.model_dump()},
    "raw_pool.answer_column": {"raw_pool", "tests"},
    "raw_pool.limit": {"raw_pool"},
    "raw_pool.further_paths": {"raw_pool"},
    # New questions are compared with the pool's as these were with one another.
    **{f"pool.{name}": {"pool", "proposed_questions"} for name in Comparison.model_fields},
    # A test split off the pool takes the place of a file.
    "pool.in_domain_share": {"pool", "tests"},
    "pool.out_of_domain": {"pool", "tests"},
    # Sampled alike, so that they can be compared; contexts show the student's prompt.
    **{f"rollouts.{name}": SAMPLING for name in ("temperature", "top_p", "max_new_tokens")},
    **{
        f"rollouts.{name}": SAMPLING | {"teacher_contexts"}
        for name in ("instruction", "open_instruction", "permute_options")
    },
    # What bounds memory or judges a result changes none.
    "rollouts.batch_tokens": set(),
    "context_beliefs.batch_tokens": set(),
    "teacher_lift.batch_tokens": set(),
    "distilled_adapter.require_lift": set(),
    **{f"rounds.{name}": set() for name in Config().rounds.model_dump()},
    # Further examples are taken as the first ones were.
    **{f"teacher_contexts.{name}": {"teacher_contexts", "teacher_lift"} for name in TeacherContextsConfig.model_fields},
    "predictions.batch_tokens": set(),
    "neuron_scores.batch_tokens": set(),
    "neuron_scores.chunk_tokens": set(),
    "neuron_scores.max_unscored_share": set(),
    "causal_check.batch_tokens": set(),
    "proposed_questions.batch_tokens": set(),
    **{
        f"rival_adapter.{name}": set()
        for name in RivalAdapterConfig.read_by
        if name not in ("targets", "min_vote_share")
    },
    **{
        f"{name}.{setting}": set()
        for name in ADAPTERS
        for setting in ("activation_checkpointing", "checkpoint_every", "report_to")
    },
    "neuron_scores.position": {"neuron_scores", "causal_check"},
}
"""Stages by setting; a setting that does not stand here changes its own stage."""


def changed(value, kind):
    """Return another value of the same kind."""
    choices = [choice for choice in get_args(kind) if isinstance(choice, str) and choice != value]
    if choices:
        return choices[0]
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 or 0.5
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [*value, "other"]
    return 7 if int in get_args(kind) else "other"


def settings():
    return [(section, name) for section, values in Config() if section != "model" for name in values.model_dump()]


@pytest.mark.parametrize(("section", "name"), settings(), ids=lambda part: part)
def test_a_setting_remakes_what_reads_it_and_nothing_else(section, name):
    before = Config()
    own = getattr(before, section)
    kind = type(own).model_fields[name].annotation
    after = before.model_copy(update={section: own.model_copy(update={name: changed(getattr(own, name), kind)})})
    remade = {spec.name for spec in STAGES if determining_settings(spec, before) != determining_settings(spec, after)}
    assert remade == REMADE.get(f"{section}.{name}", OWN[section])


READ_ANSWERS = {"answers", "context_beliefs", "teacher_lift", "proposed_questions", "evaluation"}
SCORED = {"neuron_scores", "causal_check"}
CONTEXTS = {"teacher_contexts", "context_beliefs", "teacher_lift", "proposed_questions"}
EVERYTHING = {spec.name for spec in STAGES}
EDITED: dict[str, set[str]] = {
    "pipeline/pool/jsonl.py": LAYOUT,
    "pipeline/pool/run.py": {"raw_pool"},
    "pipeline/deduplication/near_duplicates.py": {"pool", "proposed_questions"},
    "pipeline/proposals/parse.py": {"proposed_questions"},
    "pipeline/held_out/questions.py": {"pool", "tests"},
    "pipeline/held_out/run.py": {"tests"},
    "pipeline/generation/transformers.py": SAMPLING | ADAPTERS,  # students sample, too, and verify responses
    "pipeline/rollouts/sample.py": SAMPLING,
    "pipeline/answers/extract.py": READ_ANSWERS,
    "pipeline/answers/equivalence.py": READ_ANSWERS | {"pseudo_labels", "rival_adapter"},
    "pipeline/votes/vote.py": {"pseudo_labels", "context_beliefs", "teacher_lift", "proposed_questions"},
    "pipeline/neurons/topk.py": SCORED,
    "pipeline/neurons/confounds.py": {"neuron_scores"},
    "pipeline/causal/silence.py": {"causal_check"},
    "pipeline/beliefs/beliefs.py": {"context_beliefs", "teacher_lift", "proposed_questions"},
    "pipeline/lift/lift.py": {"teacher_lift"},
    "pipeline/selection/vote_share.py": {"curated_subset"},
    "pipeline/teacher/lexical.py": CONTEXTS,
    "pipeline/retrieval/exact.py": CONTEXTS | {"curated_subset"},  # of questions whose shift is steady
    "pipeline/adapters/job.py": ADAPTERS,
    "training/objectives/opsd.py": {"distilled_adapter", "ceiling_adapter"},
    "training/objectives/gold_context.py": {"ceiling_adapter"},
    "training/objectives/sft.py": {"rival_adapter"},
    "training/sampling.py": ADAPTERS,
    "training/distributed.py": ADAPTERS,
    "training/run.py": ADAPTERS,
    "training/guard.py": ADAPTERS,
    "training/checkpoints.py": ADAPTERS,
    "pipeline/predictions/run.py": PREDICTIONS,
    "pipeline/predictions/p_true.py": set(),  # not asked for
    "pipeline/predictions/contenders.py": {"evaluation"},
    "pipeline/evaluation/metrics.py": {"evaluation"},
    "pipeline/plots.py": {"evaluation"},
    # Where tokens are counted stands in the code that runs the model; what becomes of the counts does not.
    "pipeline/ledger/meter.py": SAMPLING | SCORED | ADAPTERS,
    "pipeline/ledger/usage.py": ADAPTERS,
    "pipeline/rounds/merge.py": {"merged_model"},
    "pipeline/strain.py": ADAPTERS,
    "pipeline/section.py": EVERYTHING,
    "pipeline/store/writer.py": EVERYTHING,
    # What only lists, starts, draws for people or looks after stages shapes nothing that is stored.
    **{
        path: set()
        for path in (
            *("pipeline/chain.py", "pipeline/stages.py", "pipeline/config.py", "pipeline/fingerprint.py"),
            *("pipeline/ledger/attempt.py", "pipeline/ledger/table.py"),
            *("pipeline/checks/config.py", "pipeline/checks/registry.py", "pipeline/checks/judge.py"),
            "pipeline/store/run_table.py",
            *("pipeline/store/store.py", "pipeline/store/__main__.py", "pipeline/presets/__init__.py"),
            "pipeline/store/part.py",
            *("pipeline/neurons/plot.py", "pipeline/neurons/stage.py", "pipeline/adapters/process.py"),
            *("pipeline/reference/world.py", "pipeline/answers/early.py", "assets/publish.py"),
            "pipeline/adapters/gate.py",
            *("pipeline/study/figures.py", "pipeline/inspection/trace.py", "pipeline/harness/ask.py"),
            *("pipeline/rounds/drift.py", "pipeline/rounds/run.py", "pipeline/report/page.py"),
            *("pipeline/facts/questions.py", "pipeline/packaged/smollm2.py"),
        )
    },
}
"""Stages by the file whose code changed."""


def digests(folder):
    default = Config()
    return {spec.name: reachable_code(spec.modules(getattr(default, spec.key)), folder).digest for spec in STAGES}


CASES = [(path, "code") for path in EDITED] + [
    (path, "comment") for path in ("pipeline/answers/extract.py", "pipeline/store/writer.py", "pipeline/chain.py")
]


@pytest.mark.parametrize(("path", "kind"), CASES)
def test_an_edit_remakes_what_can_reach_it_and_a_comment_nothing(tmp_path, path, kind):
    for package in ("pipeline", "training", "assets"):
        shutil.copytree(PROJECT_ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / path).open("a", encoding="utf-8") as file:
        file.write("\n_ADDED = 1\n" if kind == "code" else "\n\n# Added.\n")
    before, after = digests(PROJECT_ROOT), digests(tmp_path)
    remade = {name for name in before if before[name] != after[name]}
    assert remade == (EDITED[path] if kind == "code" else set())


def test_every_room_stands_in_the_table():
    rooms = {path.parent.name for path in (PROJECT_ROOT / "pipeline").glob("*/*.py")}
    assert rooms == {path.split("/")[1] for path in EDITED if path.startswith("pipeline/") and path.count("/") > 1}
