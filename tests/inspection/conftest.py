"""Two runs that chose other questions, of a source of five rows: one nearly repeats the second, one is the same."""

import pytest

from pipeline.stages import open_store

IDS = ["a0aaaaaa", "b1bbbbbb", "c2cccccc", "d3dddddd"]
TEST = "e4eeeeee"


def fill(run, put, chosen, rule, right):
    pool = [{"id": id_, "question": f"Q{n}?", "source": f"pool.jsonl:{n + 1}"} for n, id_ in enumerate(IDS)]
    put(run, "raw_pool", raw_pool=pool)
    refused = {"source": "pool.jsonl", "line": 5, "reason": "duplicate"}
    refused["detail"] = "the same question and options as pool.jsonl:2"
    put(run, "quarantine", quarantine=[refused])
    dropped = {"id": IDS[3], "reason": "near_duplicate", "twin": IDS[1], "similarity": 0.91, "source": "pool.jsonl:4"}
    put(run, "pool", inputs=["raw_pool"], pool=pool[:3], dropped=[dropped])
    put(run, "tests", in_domain=[{"id": TEST, "question": "T?", "source": "test.jsonl:1"}])
    stated = [("w", 0), ("w", 0), (None, None)]
    answers = [
        {"id": id_, "sample": n, "answer": answer, "answer_index": index}
        for id_ in IDS[:3]
        for n, (answer, index) in enumerate(stated)
    ]
    put(run, "answers", inputs=["pool"], answers=answers, n_shards=2)
    votes = [{"id": id_, "state": "majority", "pseudo_answer": "w", "vote_share": 2 / 3} for id_ in IDS[:3]]
    put(run, "pseudo_labels", inputs=["answers"], pseudo_labels=votes)
    scores = [
        {"id": id_, "selected": id_ in chosen, "score": float(n), "rank": n + 1, "reason": f"rank {n + 1} of 3"}
        for n, id_ in enumerate(IDS[:3])
    ]
    put(run, "curated_subset", inputs=["pseudo_labels"], settings={"rule": rule}, curated_subset=scores)
    contexts = [{"id": id_, "demonstration_ids": [x for x in IDS[:3] if x != id_][:1]} for id_ in chosen]
    put(run, "teacher_contexts", inputs=["curated_subset"], teacher_contexts=contexts)
    put(
        run,
        "distilled_adapter",
        inputs=["teacher_contexts"],
        notes={"training_questions": len(chosen)},
        training_log=[],
    )
    graded = [
        {"model": "distilled", "split": "in_domain", "id": TEST, "sample": n, "answer": "w", "correct": n < right}
        for n in range(4)
    ]
    put(run, "evaluation", inputs=["tests"], predictions=graded)
    return run


@pytest.fixture
def runs(tmp_path, put):
    store = open_store(tmp_path / "data")
    first = fill(store.run("first"), put, IDS[:1], "confident_shift", right=1)
    return first, fill(store.run("second"), put, IDS[1:2], "random", right=4)
