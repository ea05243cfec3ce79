"""A run as its stages would have left it, whose data are as hostile as text can be."""

import polars as pl

from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.metrics import summarise
from pipeline.evaluation.report import render_table, write_report
from pipeline.evaluation.schemas import PREDICTIONS
from pipeline.harness.results import Results, keep_results
from pipeline.harness.schemas import HARNESS

HOSTILE = (
    "</script><script>window.owned = 1</script><img src=http://a.example/x onerror=window.owned=2> **bold** "
    "[link](javascript:window.owned=3) \x1b[31mred\x1b[0m \u202egnirts\u202c {{ 7 * 7 }} {% raw %} &lt; " + "w" * 200
)
N_QUESTIONS, N_CHOSEN = 30, 6
METHODS = {"sft": "fine-tuning on votes. As told.", "distilled": "distillation. As told."}


def question(number):
    text = f"What is thing {number}? " + (HOSTILE if number % 3 == 0 else "")
    return {"id": f"q{number:02}", "question": text, "options": ["red", HOSTILE], "kind": "open", "domain": HOSTILE}


def predictions(p_true=True):
    """In domain 10, 11 and 18 of 20 questions are right, out of domain 10, 11 and 2, two samples each."""
    rows = [
        {"model": model, "split": split, "id": f"t{q:02}", "sample": s, "answer": HOSTILE,
         "answer_index": int(q >= right), "gold_index": 0, "correct": q < right,
         "option_probs": [0.9, 0.1] if q < right else [0.2, 0.8], "p_true": q / 20 if p_true else None}
        for split, distilled in (("in_domain", 18), ("out_of_domain", 2))
        for model, right in (("untouched", 10), ("sft", 11), ("distilled", distilled))
        for q in range(20)
        for s in range(2)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=pl.DataFrame(PREDICTIONS.empty_table()).schema)


def put_curation(put, run, n=N_QUESTIONS):
    questions = [question(number) for number in range(n)]
    refused = [{"source": "pool.jsonl", "line": 7, "reason": "not_json", "detail": HOSTILE, "raw": HOSTILE}]
    notes = {"read": n + 2, "kept": n + 1, "refused": 1, "refused_share": 1 / (n + 2)}
    put(run, "raw_pool", notes=notes, raw_pool=[*questions, question(9999)])
    put(run, "quarantine", notes=notes, quarantine=refused)
    dropped = [{"id": "q9999", "reason": "near_duplicate", "twin": "q00", "similarity": 0.95, "source": "pool.jsonl:9"}]
    told = {"stem families": 1, "largest stem families": [{"template": HOSTILE, "questions": n}], "contamination": []}
    put(run, "pool", notes=told, pool=questions, dropped=dropped)
    samples = [(q["id"], s) for q in questions for s in range(2)]
    put(
        run,
        "rollouts",
        settings={"n_samples": 2},
        rollouts=[{"id": i, "sample": s, "response": HOSTILE, "response_ids": [1] * (s + 3), "finish_reason": "stop",
                   "self_certainty": 1.0} for i, s in samples],
    )  # fmt: skip
    stated = [{"id": i, "sample": s, "answer": HOSTILE, "extraction": "colon"} for i, s in samples]
    put(run, "answers", notes={"abstention_share": 0.25}, answers=stated)
    votes = [{"id": q["id"], "state": "majority", "pseudo_answer": HOSTILE, "vote_share": 0.5, "margin": 0.5}
             for q in questions]  # fmt: skip
    put(run, "pseudo_labels", pseudo_labels=votes)
    sizes = [
        {"id": i, "sample": s, "n_neurons": 5 + s, "score_sum": 1.0, "layer_scores": [0.25, 0.75]} for i, s in samples
    ]
    put(
        run,
        "neuron_scores",
        notes={"rollouts": 2 * n, "scored": 2 * n, "unscored": {}, "model_utilization_index": 0.5,
               "warning": "short ones",
               "rank_correlation_of_support": {"n_response_tokens": 0.9, "mean_logprob": None}},
        neuron_sizes=sizes,
    )  # fmt: skip
    chosen = [
        {
            "id": q["id"],
            "selected": rank <= N_CHOSEN,
            "score": rank / 10,
            "rank": rank,
            "reason": f"rank {rank}: {HOSTILE}",
        }
        for rank, q in enumerate(questions, start=1)
    ]
    put(run, "curated_subset", settings={"rule": "entropy", "fraction": 0.2}, notes={"score_vs_length": -0.4},
        curated_subset=chosen)  # fmt: skip
    contexts = [
        {"id": q["id"], "demonstration_ids": [questions[-1]["id"]], "similarities": [0.5], "n_teacher_tokens": 90}
        for q in questions[:N_CHOSEN]
    ]
    echo = {"answer_echo": 0.5, "answer_echo_by_chance": 0.1, "demonstrations_dropped": 0, "warning": "It is told."}
    put(
        run,
        "teacher_contexts",
        settings={"builder": "lexical", "n_demonstrations": 1},
        notes=echo,
        teacher_contexts=contexts,
    )


def put_outcome(put, run):
    put(run, "teacher_lift", notes={"verdict": "go: it helps.", "outcome": "go"},
        teacher_lift=[{"id": "q00", "confirmed": 0.5, "confirmed_wrong": 0.25, "lift": 0.25}])  # fmt: skip
    steps = [{"step": step, "loss": 1 / step, "entropy": 0.5} for step in range(1, 6)]
    stopped = {"stopped_at": 5, "kept_step": 3, "stopped_because": "entropy rose"}
    for name, label in (("rival_adapter", "sft"), ("distilled_adapter", "opsd")):
        notes = {"label": label, "title": "a method", "training_questions": N_CHOSEN}
        put(run, name, notes=notes | (stopped if label == "opsd" else {}), training_log=steps)
    put(run, "ceiling_adapter", notes={"skipped": "ceiling_adapter.enabled is false"}, training_log=[])
    asked = [question(number) | {"id": f"t{number:02}"} for number in range(20)]
    put(run, "tests", in_domain=asked, out_of_domain=asked)
    put_evaluation(put, run, predictions())
    put_tasks(run)


def put_evaluation(put, run, graded):
    metrics = summarise(graded, EvaluationConfig(n_resamples=100))
    report = write_report(metrics, graded, {"model": "some/model", "command": "make run"}, METHODS)
    put(run, "evaluation", notes={"table": render_table(metrics)}, settings={"confidence_level": 0.95},
        save=lambda folder: (folder / "report.md").write_text(report),
        predictions=graded.to_dicts(), metrics=metrics.to_dicts())  # fmt: skip


def put_tasks(run, rival="rival_adapter"):
    """Of 100 documents in domain the untouched model gets 40 right, the others 44 and 55; one task is no share."""
    prints = [None, *(run.require(name).manifest.fingerprint for name in (rival, "distilled_adapter")), None]
    models = ("untouched", "sft", "distilled", "distilled - untouched")
    scores = [("in_domain", f"schools {HOSTILE}", "exact_match", (0.40, 0.44, 0.55, 0.15), 0.05),
              ("out_of_domain", "prose", "word_perplexity", (20.0, 21.5, 19.0, -1.0), None)]  # fmt: skip
    rows = [
        {"model": model, "split": split, "task": task, "filter": "none", "metric": metric, "value": value,
         "stderr": stderr, "n": 100, "fingerprint": fingerprint}
        for split, task, metric, values, stderr in scores
        for model, value, fingerprint in zip(models, values, prints, strict=True)
    ]  # fmt: skip
    table = pl.DataFrame(rows, schema=pl.DataFrame(HARNESS.empty_table()).schema)
    keep_results(run, Results(table, f"python -m pipeline.harness --in-domain '{HOSTILE}'"))
