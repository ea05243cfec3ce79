"""Column lineage: from which columns of its inputs every column of every artifact is made.

Said once, here, outside of all that fingerprints cover. A key names columns, a value the columns of inputs that they
are made from: none where they begin there, with files, the model's weights, sampling or a counter. What a setting
chooses among, such as selection rules, counts in full; ids by which rows are found count where they are copied. What
reaches a column through the weights of an adapter has no column to name.

Columns of an artifact's first table go by their name, those of its others by ``table.column``. In a key ``*`` stands
for anything, and the first key that fits counts; in a value ``=`` stands for the column of the same name.

Dagster's own interface does not draw it (Dagster+ does, and catalogues that read the metadata of assets), so it stands
in the descriptions of columns, too.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

import dagster as dg
import pyarrow as pa

from assets.keys import asset_key
from pipeline.predictions.contenders import CONTENDERS
from pipeline.store.artifact import Tables

Columns = Mapping[str, str]

_MOST_NAMED: Final = 12
"""Columns that a description names; own choice. Of more it names the artifacts."""


def _of(source: str, columns: str) -> str:
    return " ".join(f"{source}.{column}" for column in columns.split())


_ASKED: Final = "question options permutation"
_RESPONDED: Final = "prompt_ids permutation response_ids response finish_reason"
_POOL: Final = _of("pool", _ASKED)
_TESTS: Final = {"": _of("tests", _ASKED), "out_of_domain.": _of("tests.out_of_domain", _ASKED)}
"""What the tests ask, by what their columns begin with."""
_READ: Final = _of("rollouts", "prompt_ids response_ids")
_VOTED: Final = _of("answers", "answer answer_index")
_SETS: Final = _of(
    "neuron_scores",
    "neurons scores stem_scores.neurons stem_scores.scores rationale_scores.neurons rationale_scores.scores "
    "stem_states.state",
)
_EXAMPLES: Final = (
    f"pool.group rollouts.prompt rollouts.response {_of('pseudo_labels', 'pseudo_answer representative')} {_SETS}"
)
"""What worked examples are chosen by and made of."""
_INFORMED: Final = f"{_POOL} {_EXAMPLES}"
"""What the model is asked with worked examples."""
_TRIED: Final = f"{_INFORMED} {_of('teacher_contexts', 'privileged_context demonstration_ids')}"
_PREDICTED: Final = " ".join(
    _of(f"{contender.predictions}{split}", f"{_RESPONDED} watched_ids watched_logprobs")
    for contender in CONTENDERS
    for split in ("", ".out_of_domain")
)
_GRADED: Final = (
    f"{' '.join(_TESTS.values())} {_PREDICTED} {_of('gold_labels', 'gold_answer gold_index')} "
    f"{_of('test_labels', 'gold_answer gold_index out_of_domain.gold_answer out_of_domain.gold_index')}"
)
_P_TRUE: Final = " ".join(
    f"{contender.predictions}.{split}_p_true.p_true"
    for contender in CONTENDERS
    for split in ("in_domain", "out_of_domain")
)


def _from_predictions(column: str) -> str:
    return " ".join(_of(contender.predictions, f"{column} out_of_domain.{column}") for contender in CONTENDERS)


_PREDICTIONS: Final = {
    "sample out_of_domain.sample": "",
    "id in_domain_p_true.id": "tests.id",
    "out_of_domain.id out_of_domain_p_true.id": "tests.out_of_domain.id",
    "out_of_domain*": _TESTS["out_of_domain."],
    "*": _TESTS[""],
}

LINEAGE: Final[Mapping[str, Columns]] = {
    "raw_pool": {"*": ""},
    "gold_labels": {"*": ""},
    "quarantine": {"*": ""},
    "pool": {
        "dropped.id dropped.source contamination.id": "raw_pool.=",
        "dropped.reason": _of("raw_pool", "question options domain"),
        "contamination.evaluation_id": "raw_pool.id",
        "contamination.evaluation_source": "raw_pool.source",
        "family template": "raw_pool.question",
        "group dropped.* contamination.*": _of("raw_pool", "question options"),
        "*": "raw_pool.=",
    },
    "tests": {"out_of_domain.*": "pool.out_of_domain_test.=", "*": "pool.in_domain_test.="},
    "test_labels": {"*": ""},
    "rollouts": {"id": "pool.=", "sample": "", "*": _POOL},
    "answers": {
        "id sample": "rollouts.=",
        "option_probs": f"pool.options {_of('rollouts', f'{_RESPONDED} watched_ids watched_logprobs')}",
        "*": f"{_of('pool', 'question options')} {_of('rollouts', _RESPONDED)}",
    },
    "pseudo_labels": {"id": "answers.=", "representative": f"{_VOTED} rollouts.logprobs", "*": _VOTED},
    "neuron_scores": {
        "id sample *.id *.sample": "rollouts.=",
        "neuron_sizes.mean_logprob": "rollouts.logprobs",
        "neuron_sizes.self_certainty": "rollouts.=",
        "rationale_scores.*": f"{_READ} {_of('answers', 'answer_start answer_stop')}",
        "stem_*": _of("rollouts", "prompt_ids stem_start stem_stop"),
        "*": _READ,
    },
    "context_beliefs": {
        "id context_rollouts.id": "pool.=",
        "context_rollouts.sample": "",
        "plain": _VOTED,
        "belief_shift": f"{_VOTED} {_INFORMED}",
        "*": _INFORMED,
    },
    "curated_subset": {
        "id": "pool.=",
        "*": f"pool.domain {_of('pseudo_labels', 'state pseudo_answer n_votes vote_share entropy')} {_SETS} "
        f"{_of('neuron_scores.neuron_sizes', 'n_neurons n_response_tokens self_certainty')} "
        f"{_of('context_beliefs', 'belief_shift informed_answer informed_share')}",
    },
    "teacher_contexts": {"id": "curated_subset.=", "prompt": _POOL, "*": _INFORMED},
    "teacher_lift": {
        "id *.id": "teacher_contexts.=",
        "lift_answers.examples lift_rollouts.sample": "",
        "lift_rollouts.*": _TRIED,
        "lift_answers.*": f"{_TRIED} {_VOTED} rollouts.logprobs",
        "*": f"{_TRIED} pseudo_labels.pseudo_index",
    },
    "distilled_adapter": {
        "step learning_rate": "",
        "*": f"{_of('teacher_contexts', 'prompt privileged_context')} {_of('pool', 'question options')}",
    },
    "rival_adapter": {
        "step learning_rate": "",
        "*": f"{_of('pool', 'question options')} {_of('rollouts', f'prompt {_RESPONDED}')} curated_subset.selected "
        f"{_VOTED} answers.answer_start {_of('pseudo_labels', 'pseudo_answer pseudo_index representative vote_share')}",
    },
    "ceiling_adapter": {
        "step learning_rate": "",
        "*": f"teacher_contexts.prompt gold_labels.gold_answer {_of('pool', 'question options')}",
    },
    **{contender.predictions: _PREDICTIONS for contender in CONTENDERS},
    "evaluation": {
        "model split metrics.model metrics.split metrics.metric metrics.seed": "",
        "id sample": _from_predictions("="),
        "gold_index": _of("gold_labels", "=") + f" {_of('test_labels', '= out_of_domain.=')}",
        "answer answer_index option_probs": f"{' '.join(_TESTS.values())} {_PREDICTED}",
        "p_true": _P_TRUE,
        "correct": _GRADED,
        "metrics.n": _from_predictions("id"),
        "metrics.k": _from_predictions("sample"),
        "metrics.*": f"{_GRADED} {_P_TRUE}",
    },
    "causal_check": {
        "id sample": "neuron_scores.=",
        "n_response_tokens": "rollouts.response_ids",
        "n_silenced layer_counts": _of("neuron_scores", "neurons scores"),
        "logprob": _READ,
        "*": f"{_READ} {_of('neuron_scores', 'neurons scores')}",
    },
    "proposed_questions": {
        "proposal *.sample proposal_rollouts.id": "",
        "domain": "pool.=",
        "examples": f"pool.id {_EXAMPLES}",
        "state detail": f"{_INFORMED} {' '.join(_TESTS.values())}",
        "*": _INFORMED,
    },
    "merged_model": {"*": ""},
}


def flat(tables: Tables) -> dict[str, pa.Field]:
    """Return the columns of all tables of an artifact by the names that they have here."""
    first = next(iter(tables))
    return {
        field.name if table == first else f"{table}.{field.name}": field
        for table, schema in tables.items()
        for field in schema
    }


def key_of(artifact: str, column: str) -> str | None:
    """Return the key under which the lineage of a column is declared, or none."""
    keys = LINEAGE.get(artifact, {})
    return next((key for key in keys if any(fnmatchcase(column, pattern) for pattern in key.split())), None)


def made_from(artifact: str, column: str) -> list[tuple[str, str]]:
    """Return the columns, each with its artifact, that a column is made from."""
    key = key_of(artifact, column)
    sources = LINEAGE[artifact][key].split() if key else ()
    own = column.rpartition(".")[2]
    pairs = (source.partition(".") for source in sources)
    return list(dict.fromkeys((name, source.replace("=", own)) for name, _, source in pairs))


def column_lineage(run: str, artifact: str, tables: Tables) -> dg.TableColumnLineage:
    """Return the lineage of an artifact of a run, as Dagster has it."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key(run, name), source) for name, source in made_from(artifact, column)]
            for column in flat(tables)
        }
    )


def column_schema(artifact: str, tables: Tables) -> dg.TableSchema:
    """Return the columns of all tables of an artifact, with what they hold and what they are made from."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column,
                type=str(field.type),
                description=_describe(artifact, column, field),
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for column, field in flat(tables).items()
        ]
    )


def _describe(artifact: str, column: str, field: pa.Field) -> str:
    note = (field.metadata or {}).get(b"note", b"").decode()
    sources = made_from(artifact, column)
    if not sources:
        return note
    names = list(dict.fromkeys(name for name, _ in sources))
    told = names if len(sources) > _MOST_NAMED else [f"{name}.{source}" for name, source in sources]
    return f"{note}; made from {', '.join(told)}"
