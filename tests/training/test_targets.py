"""Which responses fine-tuning learns: majority, rationales and answers, by hand-made votes."""

import polars as pl
import pytest

from pipeline.adapters.config import RivalAdapterConfig
from pipeline.answers.schemas import ANSWERS
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.votes.schemas import PSEUDO_LABELS
from tests.training.conftest import put
from training.targets import reasons, scan_targets

ROWS = {  # question: stated option (a text where there is none), by sample; None abstains
    "q0": [0, 1, 0, None],
    "q1": ["1/2", "0.5", "x"],
    "q2": [0, 1],
    "q3": [0, 0],
}
LABELS = [
    {"id": "q0", "pseudo_answer": "red", "pseudo_index": 0, "representative": 2, "vote_share": 0.5},
    {"id": "q1", "pseudo_answer": "1/2", "pseudo_index": None, "representative": 0, "vote_share": 2 / 3},
    {"id": "q2", "pseudo_answer": None, "pseudo_index": None, "representative": None, "vote_share": 0.5},  # a tie
    {"id": "q3", "pseudo_answer": "red", "pseudo_index": 0, "representative": 0, "vote_share": 1.0},  # not selected
]


@pytest.fixture
def targets_of(job_for, tmp_path):
    def scan(**changes):
        folders = {name: tmp_path / name for name in ("rollouts", "answers", "pseudo_labels", "curated_subset")}
        stated = [(q, sample, answer) for q, answers in ROWS.items() for sample, answer in enumerate(answers)]
        tables = {
            "rollouts": (ROLLOUTS, [{"id": q, "sample": n, "response": f"{a}"} for q, n, a in stated]),
            "answers": (
                ANSWERS,
                [
                    {
                        "id": q,
                        "sample": n,
                        "answer": None if a is None else str(a),
                        "answer_index": a if isinstance(a, int) else None,
                        "answer_start": None if a is None else n,
                    }
                    for q, n, a in stated
                ],
            ),
            "pseudo_labels": (PSEUDO_LABELS, LABELS),
            "curated_subset": (CURATED_SUBSET, [{"id": q, "selected": q != "q3"} for q in ROWS]),
        }
        for name, (schema, rows) in tables.items():
            put(folders[name] / f"{name}.parquet", schema, rows)
        settings = RivalAdapterConfig(**changes)
        found = scan_targets(job_for("sft", tmp_path, settings, inputs=folders), settings).collect()
        return found.select("id", "sample").rows()

    return scan


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"targets": "majority"}, [("q0", 2), ("q1", 0)]),
        ({"targets": "majority", "min_vote_share": 0.6}, [("q1", 0)]),
        ({"targets": "rationales"}, [("q0", 0), ("q0", 2), ("q1", 0), ("q1", 1)]),  # 0.5 is 1/2
        ({"targets": "rationales", "min_vote_share": 0.6}, [("q1", 0), ("q1", 1)]),
        ({"targets": "rationales", "min_vote_share": 0.7}, []),
        (
            {"targets": "verified", "min_vote_share": 0.7},  # whatever the votes
            [("q0", 0), ("q0", 1), ("q0", 2), ("q1", 0), ("q1", 1), ("q1", 2), ("q2", 0), ("q2", 1)],
        ),
    ],
)
def test_targets_are_the_selected_questions_responses(targets_of, changes, expected):
    assert targets_of(**changes) == expected


@pytest.mark.parametrize(
    ("before", "reasoned"),
    [
        ("The shift is two: jade to lapis. Answer: ", True),
        ("First the shift.\nAnswer: ", True),
        ("One line\nand then: ", True),
        ("<think>\nTwo.\n</think>\n", True),
        ("Is it two? Yes! The answer is ", True),
        ("", False),
        ("Answer: ", False),
        ("The answer is **", False),
        ("**\n\n", False),  # no word
        ("At 0.5 and e.g.this it is ", False),  # points within a sentence
    ],
)
def test_a_response_reasons_if_a_sentence_or_line_ends_before_the_one_with_the_answer(tiny, before, reasoned):
    ids = tiny.tokenizer.encode(f"{before}lapis. That is so. Sure.<|end|>", add_special_tokens=False)
    rows = pl.DataFrame({"response_ids": [ids], "answer_start": [len(before)]})  # a token is a byte
    assert reasons(rows, tiny.tokenizer).to_list() == [reasoned]
