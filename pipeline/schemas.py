"""The declared schema of every table: the contract between stages, checked on write and on read.

A table is named ``<artifact>/<table>.parquet`` in the store: a file, or a folder of shards. Column notes travel in the
Parquet files. Raise ``SCHEMA_VERSION`` when a column changes its meaning.
"""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 3


def _table(**columns: tuple[pa.DataType, bool, str]) -> pa.Schema:
    """Build a schema from ``name=(type, nullable, note)``."""
    return pa.schema(
        [pa.field(name, kind, nullable, metadata={"note": note}) for name, (kind, nullable, note) in columns.items()]
    )


_ID = (pa.large_string(), False, "content hash of question and options")
_SAMPLE = (pa.int32(), False, "number of the rollout within its question, from 0")
_TOKENS = pa.large_list(pa.int32())
_FLOATS = pa.large_list(pa.float32())

RAW_POOL = _table(
    id=_ID,
    question=(pa.large_string(), False, "question text, normalised to NFC with outer white space removed"),
    options=(
        pa.large_list(pa.large_string()),
        False,
        "answer options in the source's order, which every option index counts in; empty for an open question",
    ),
    kind=(pa.large_string(), False, "multiple_choice, true_or_false, or open"),
    domain=(pa.large_string(), False, "domain as the source names it; empty when it does not"),
    level=(pa.large_string(), False, "level as the source names it; empty when it does not"),
    task=(pa.large_string(), False, "task as the source names it; empty when it does not"),
    permutation=(
        pa.large_list(pa.int32()),
        False,
        "index of the option that the prompt shows at each letter; 0, 1, ... unless permuted",
    ),
    prompt=(pa.large_string(), False, "user message: question, lettered options, instruction"),
    source=(pa.large_string(), False, "file name and line or row number, from 1"),
)
GOLD_LABELS = _table(
    id=_ID,
    gold_answer=(pa.large_string(), False, "text of the right option, or the reference answer of an open question"),
    gold_index=(pa.int32(), True, "index of the right option, from 0; null for an open question"),
)
QUARANTINE = _table(
    source=(pa.large_string(), False, "file name"),
    line=(pa.int64(), False, "line or row number, from 1"),
    reason=(pa.large_string(), False, "reason code"),
    detail=(pa.large_string(), False, "what is wrong, in words"),
    raw=(pa.large_string(), False, "the row as it was read, long ones cut; undecodable bytes as backslash escapes"),
)
POOL = pa.schema(
    [
        *RAW_POOL,
        *_table(
            group=(pa.large_string(), False, "smallest id among the near-duplicates of the question, its own included"),
            family=(pa.large_string(), False, "stem family: hash of the template's words"),
            template=(pa.large_string(), False, "name of the family: its first stem with the fillings left out"),
        ),
    ]
)
DROPPED = _table(
    id=_ID,
    reason=(
        pa.large_string(),
        False,
        "contaminated, near_duplicate, in_domain_test, out_of_domain_test, or tied_to_test (of one group with a test)",
    ),
    twin=(
        pa.large_string(),
        True,
        "id of the keeper (in pool or test) or of the evaluation question; null if held out",
    ),
    similarity=(pa.float64(), True, "weighted Jaccard index with the keeper, or share of the evaluation question"),
    source=(pa.large_string(), False, "file name and line or row number, from 1"),
)
CONTAMINATION = _table(
    id=_ID,
    evaluation_id=(pa.large_string(), False, "id of the evaluation question, or that of a test split off, it repeats"),
    evaluation_source=(pa.large_string(), False, "its file name and line or row number, from 1"),
    score=(pa.float64(), False, "share of its n-grams, stem and options, weighted by rarity, in the pool question"),
    stem_overlap=(pa.float64(), False, "the same of the stem, words of its template left out"),
    option_overlap=(pa.float64(), True, "the same of the options; null where there are none, or none that say much"),
    shared_text=(pa.large_string(), False, "longest run of words that both stems hold, shortened"),
)
ROLLOUTS = _table(
    id=_ID,
    sample=_SAMPLE,
    prompt_ids=(_TOKENS, False, "token ids of the rendered prompt, chat template included"),
    permutation=(_TOKENS, False, "index of the option that this rollout's prompt shows at each letter"),
    response_ids=(_TOKENS, False, "token ids sampled, the end token included when it was reached"),
    response=(pa.large_string(), False, "decoded response without special tokens"),
    logprobs=(_FLOATS, False, "log-probability of each response token at temperature 1 (nats)"),
    self_certainty=(
        pa.float64(),
        True,
        "mean over response tokens of KL(uniform, p) (nats); null without response",
    ),
    finish_reason=(
        pa.large_string(),
        False,
        "stop, length; without response, prompt_too_long or special_token_in_prompt",
    ),
    answer=(pa.large_string(), True, "extracted answer: option text, or text of an open answer; null is an abstention"),
    answer_index=(pa.int32(), True, "index of the extracted option, from 0; null for abstentions and open questions"),
    extraction=(pa.large_string(), False, "rule that found the answer, or why the extractor abstained"),
    option_probs=(
        _FLOATS,
        True,
        "probability of each option, by its letter or first token, where the answer is stated; null if it is not",
    ),
    stem_start=(
        pa.int32(),
        True,
        "position in prompt_ids of the first token of the question's text, without options and instruction; null if "
        "it cannot be told exactly",
    ),
    stem_stop=(pa.int32(), True, "position after its last token; a token belongs to it if any of its characters does"),
    answer_start=(pa.int32(), True, "position in response_ids of the stated answer's first token; null if abstained"),
    answer_stop=(pa.int32(), True, "position after its last token"),
)
PSEUDO_LABELS = _table(
    id=_ID,
    state=(pa.large_string(), False, "majority, tie, all_abstain, or too_few_votes"),
    pseudo_answer=(pa.large_string(), True, "answer with most votes; null unless the state is majority"),
    pseudo_index=(pa.int32(), True, "its option index; null for open questions and without majority"),
    representative=(pa.int32(), True, "sample number of the majority rollout with the highest mean log-probability"),
    n_votes=(pa.int32(), False, "rollouts with an answer"),
    n_abstentions=(pa.int32(), False, "rollouts without an answer"),
    vote_share=(pa.float64(), False, "votes of the leading answer over all rollouts, abstentions included"),
    margin=(pa.float64(), False, "leading minus second vote share"),
    entropy=(pa.float64(), False, "entropy of the votes (nats), abstentions left out"),
    effective_votes=(pa.float64(), False, "exp of the entropy: how many answers share the votes"),
)
NEURON_SCORES = _table(
    id=_ID,
    sample=_SAMPLE,
    neurons=(_TOKENS, False, "neuron ids, layer * d_mlp + index, ascending"),
    scores=(_FLOATS, False, "largest positive contribution of each neuron (logits), in the order of neurons"),
)
NEURON_SIZES = _table(
    id=_ID,
    sample=_SAMPLE,
    n_neurons=(pa.int32(), False, "different neurons that carry the kept entries, |N|"),
    n_response_tokens=(pa.int32(), False, "response tokens scored: the obvious confound of |N|"),
    score_sum=(pa.float64(), False, "sum of all positive contributions (logits)"),
    participation_ratio=(pa.float64(), False, "(sum c)^2 / sum c^2 over all positive contributions"),
    entropy_size=(pa.float64(), False, "exp of the entropy of all positive contributions, normalised"),
    layer_counts=(_TOKENS, False, "kept neurons per layer"),
    layer_scores=(_FLOATS, False, "sum of all positive contributions per layer (logits)"),
    displacement=(pa.float64(), False, "mean RMS distance of the hidden state from first layer in to last layer out"),
    mean_logprob=(pa.float64(), True, "mean log-probability of the response tokens (nats), as sampled"),
    self_certainty=(pa.float64(), True, "mean over response tokens of KL(uniform, p) (nats), as sampled"),
)
RATIONALE_SCORES = _table(
    id=_ID,
    sample=_SAMPLE,
    neurons=(_TOKENS, False, "neuron ids, as in neuron_scores, of the response without its stated answer"),
    scores=(_FLOATS, False, "largest positive contribution of each neuron (logits); all empty if nothing is left"),
)
STEM_SCORES = _table(
    id=_ID,
    neurons=(_TOKENS, False, "neuron ids, as in neuron_scores, of the question's stem, read with sample 0"),
    scores=(_FLOATS, False, "largest positive contribution of each neuron to a token of the stem (logits)"),
)
STEM_STATES = _table(
    id=_ID,
    state=(_FLOATS, False, "mean over the stem's tokens of the hidden state leaving the last layer, before its norm"),
)
UNSCORED_ROLLOUTS = _table(
    id=_ID,
    sample=_SAMPLE,
    reason=(pa.large_string(), False, "reason code"),
    detail=(pa.large_string(), False, "what is wrong, in words"),
)
CONTEXT_BELIEFS = _table(
    id=_ID,
    n_samples=(pa.int32(), False, "responses sampled with the teacher's context; 0 where the prompt got none"),
    plain=(_FLOATS, True, "share of votes per option without context, abstentions left out; null without votes"),
    informed=(_FLOATS, True, "the same with the teacher's context"),
    belief_shift=(
        pa.float64(),
        True,
        "Jensen-Shannon divergence of the two, abstaining an answer of its own (nats); null without responses",
    ),
    informed_answer=(pa.large_string(), True, "answer with most votes given the context; null on a tie or without"),
    informed_share=(pa.float64(), True, "its votes over all responses; null without responses"),
)
CURATED_SUBSET = _table(
    id=_ID,
    selected=(pa.bool_(), False, "whether the question becomes a training question"),
    score=(pa.float64(), True, "the rule's score; null when the rule cannot score the question"),
    rank=(pa.int32(), True, "rank of the score within its budget, from 1; null without score"),
    distance_to_cut=(pa.float64(), True, "score minus the score of the last question kept"),
    reason=(pa.large_string(), False, "why the question was chosen or not, in words"),
)
TEACHER_CONTEXTS = _table(
    id=_ID,
    prompt=(pa.large_string(), False, "the student's user message"),
    privileged_context=(pa.large_string(), False, "what the teacher sees before the prompt; may be empty"),
    demonstration_ids=(pa.large_list(pa.large_string()), False, "pool questions shown, in order"),
    similarities=(_FLOATS, False, "similarity of each demonstration to the question"),
    n_teacher_tokens=(pa.int32(), False, "tokens of the teacher's rendered prompt"),
    n_dropped=(pa.int32(), False, "demonstrations left out because they did not fit"),
)
TRAINING_LOG = _table(
    step=(pa.int32(), False, "optimizer step, from 1"),
    loss=(
        pa.float64(),
        False,
        "per response token: divergence of student from teacher, or cross-entropy of the majority's response (nats)",
    ),
    learning_rate=(pa.float64(), False, "learning rate of the step"),
    grad_norm=(pa.float64(), False, "gradient norm before clipping"),
    response_tokens=(
        pa.float64(),
        False,
        "mean length of the student's samples, or of the majority's responses (tokens)",
    ),
)
PREDICTIONS = _table(
    model=(pa.large_string(), False, "untouched, sft or distilled"),
    split=(pa.large_string(), False, "in_domain or out_of_domain"),
    id=_ID,
    sample=_SAMPLE,
    answer=(pa.large_string(), True, "extracted answer; null is an abstention"),
    answer_index=(pa.int32(), True, "index of the extracted option; null for abstentions and open questions"),
    gold_index=(pa.int32(), True, "index of the right option; null for open questions"),
    correct=(pa.bool_(), False, "whether the answer is the gold answer; abstentions are wrong"),
    option_probs=(_FLOATS, True, "probability of each option where the answer is stated, normalised"),
)
METRICS = _table(
    model=(pa.large_string(), False, "a model, or a paired difference: distilled - untouched, distilled - sft"),
    split=(pa.large_string(), False, "in_domain or out_of_domain"),
    metric=(pa.large_string(), False, "avg_at_k, maj_at_k, ece_option, ece_vote, brier_option, brier_vote"),
    value=(pa.float64(), False, "estimate"),
    low=(pa.float64(), False, "lower end of the bootstrap interval"),
    high=(pa.float64(), False, "upper end of the bootstrap interval"),
    n=(pa.int32(), False, "questions"),
    k=(pa.int32(), False, "samples per question"),
    seed=(pa.int32(), False, "seed of sampling and bootstrap"),
)
CAUSAL_CHECK = _table(
    id=_ID,
    sample=_SAMPLE,
    n_response_tokens=(pa.int32(), False, "response tokens read"),
    n_silenced=(pa.int32(), False, "neurons silenced: those of the largest contributions to the response"),
    layer_counts=(_TOKENS, False, "silenced neurons per layer; each random control has the same"),
    logprob=(pa.float64(), False, "mean log-probability of the response tokens, no neuron silenced (nats)"),
    logprob_silenced=(pa.float64(), False, "the same with the leading neurons silenced (nats)"),
    logprob_random=(pa.float64(), False, "the same with random neurons silenced, mean over the controls (nats)"),
    drop_silenced=(pa.float64(), False, "logprob minus logprob_silenced: what the leading neurons are worth (nats)"),
    drop_random=(pa.float64(), False, "logprob minus logprob_random (nats)"),
)

ARTIFACTS: Final[Mapping[str, Mapping[str, pa.Schema]]] = {
    "raw_pool": {"raw_pool": RAW_POOL},
    "gold_labels": {"gold_labels": GOLD_LABELS},
    "quarantine": {"quarantine": QUARANTINE},
    "pool": {
        "pool": POOL,
        "dropped": DROPPED,
        "contamination": CONTAMINATION,
        "in_domain_test": RAW_POOL,
        "out_of_domain_test": RAW_POOL,
    },
    "rollouts": {"rollouts": ROLLOUTS},
    "pseudo_labels": {"pseudo_labels": PSEUDO_LABELS},
    "neuron_scores": {
        "neuron_scores": NEURON_SCORES,
        "neuron_sizes": NEURON_SIZES,
        "rationale_scores": RATIONALE_SCORES,
        "stem_scores": STEM_SCORES,
        "stem_states": STEM_STATES,
        "unscored_rollouts": UNSCORED_ROLLOUTS,
    },
    "context_beliefs": {"context_beliefs": CONTEXT_BELIEFS},
    "curated_subset": {"curated_subset": CURATED_SUBSET},
    "teacher_contexts": {"teacher_contexts": TEACHER_CONTEXTS},
    "distilled_adapter": {"training_log": TRAINING_LOG},
    "sft_adapter": {"training_log": TRAINING_LOG},
    "evaluation": {"predictions": PREDICTIONS, "metrics": METRICS},
    "causal_check": {"causal_check": CAUSAL_CHECK},
}
"""Tables of each artifact; the first is the one that downstream stages read."""

ENCODINGS: Final[Mapping[str, str]] = {
    "neurons": "DELTA_BINARY_PACKED",
    "scores": "BYTE_STREAM_SPLIT",
    "state": "BYTE_STREAM_SPLIT",
}
"""Parquet encodings of list columns that are stored smaller than with a dictionary: ascending ids, and floats."""
