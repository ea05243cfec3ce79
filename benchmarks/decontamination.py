"""How well contamination is found: planted leaks in published questions, and false alarms beside them.

Each file of ``--data`` (SciKnowEval's jsonl files, MMLU-Pro's test.parquet) is shuffled and halved into evaluation
questions and a clean pool. ``--plants`` evaluation questions of each kind are put into the pool: verbatim, re-cased,
with options shuffled, and edited (10 to 20 % of the words of stem and options, numbers and formulas left alone,
replaced by random words or deleted, options shuffled too; texts of fewer than ``MIN_WORDS`` such words are not edited),
and with ``FEWER_OPTIONS`` of at least twice as many options.

The halves themselves share questions, as published files hold reworded copies. A clean row that is found counts as such
a *twin*, not as false alarm, if it reads like the question that it is said to be independently of the detector's
weights (``is_twin``). Precision is that of each kind alone beside all clean rows. Beside the files, what is found where
nothing leaked: the embedded pool against its in-domain test, and a template with three fillings against itself.
``python -m benchmarks.decontamination --data DIR``.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from itertools import permutations
from pathlib import Path
from typing import Any

import polars as pl
from scipy.stats import binomtest

from benchmarks.machine import RESULTS, describe_machine, store_report
from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.contamination import contaminated
from pipeline.deduplication.features import words
from pipeline.paths import PROJECT_ROOT
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.ingest import Ingestion

OUTPUT = RESULTS / "decontamination.json"
MIN_WORDS = 10
FEWER_OPTIONS = 4
SHOWN = 10
"""False alarms and misses listed per file."""

Row = dict[str, Any]


def recase(row: Row, rng: random.Random, _: list[str]) -> None:
    """Change the letter case of a question and its options."""
    case = rng.choice([str.upper, str.lower, str.title])
    row["question"], row["options"] = case(row["question"]), [case(option) for option in row["options"]]


def shuffle(row: Row, rng: random.Random, _: list[str]) -> None:
    """Reorder the options."""
    rng.shuffle(row["options"])


def edit(row: Row, rng: random.Random, vocabulary: list[str]) -> None:
    """Replace or delete 10 to 20 % of the words, numbers and formulas left alone, and reorder the options."""
    texts = [text.split(" ") for text in (row["question"], *row["options"])]
    places = editable(row)
    for text, word in rng.sample(places, round(rng.uniform(0.1, 0.2) * len(places))):
        texts[text][word] = rng.choice(vocabulary) if rng.random() < 0.5 else ""
    question, *options = (" ".join(filter(None, text)) for text in texts)
    row["question"] = question
    row["options"] = [new or old for new, old in zip(options, row["options"], strict=True)]
    rng.shuffle(row["options"])


def drop_options(row: Row, rng: random.Random, _: list[str]) -> None:
    """Keep ``FEWER_OPTIONS`` options, as a set of four options extended to ten has it."""
    row["options"] = rng.sample(row["options"], FEWER_OPTIONS)


def editable(row: Row) -> list[tuple[int, int]]:
    """Return the places (number of the text, number of the word) of plain words."""
    texts = [row["question"], *row["options"]]
    return [(i, j) for i, text in enumerate(texts) for j, word in enumerate(text.split(" ")) if word.isalpha()]


KINDS: dict[str, Callable[[Row, random.Random, list[str]], None]] = {
    "verbatim": lambda *_: None,
    "re-cased": recase,
    "options shuffled": shuffle,
    "edited": edit,
    "fewer options": drop_options,
}


def eligible(row: Row, kind: str) -> bool:
    """Return whether a row can be changed so."""
    if kind == "fewer options":
        return len(row["options"]) >= 2 * FEWER_OPTIONS
    return kind != "edited" or len(editable(row)) >= MIN_WORDS


def read(path: Path, **layout: str) -> pl.DataFrame:
    """Read a file, published or of the given layout."""
    if not layout:
        layout = {"domain_column": "category"} if path.suffix == ".parquet" else {"format": "sciknoweval"}
    section = RawPoolConfig.model_validate({"path": str(path), "max_quarantined_share": 1.0, **layout})
    return pl.concat([batch.raw_pool for batch in Ingestion(section)]).select("id", "question", "options", "source")


def plants(evaluation: pl.DataFrame, n: int, rng: random.Random) -> Iterator[Row]:
    """Yield planted rows with their ``kind`` and the ``leak`` that they are."""
    vocabulary = sorted({word for text in evaluation["question"] for word in text.split() if word.isalpha()})
    for kind, change in KINDS.items():
        rows = evaluation.sort("id").to_dicts()
        fit = [row for row in rows if eligible(row, kind)]
        for row in rng.sample(fit, min(n, len(fit))):
            change(row, rng, vocabulary)
            yield row | {"leak": row["id"], "kind": kind, "id": f"{kind}/{row['id']}"}


def is_twin(one: Row, other: Row) -> bool:
    """Return whether two rows read alike: stems by words, with the same numbers; options by half or by characters."""
    stems = [words(row["question"]) for row in (one, other)]
    numbers = [{word for word in stem if any(map(str.isdigit, word))} for stem in stems]
    choices = [set(map(str.casefold, row["options"])) for row in (one, other)]
    common = len(choices[0] & choices[1]) >= 0.5 * min(map(len, choices))
    options = [" ".join(sorted(choice)) for choice in choices]
    alike = SequenceMatcher(None, *stems, autojunk=False).ratio()
    common = common or SequenceMatcher(None, *options, autojunk=False).ratio() >= 0.5
    return numbers[0] == numbers[1] and alike >= 0.8 and common


def share(k: int, n: int) -> Row:
    """Return a share with its Wilson interval at 95 %."""
    if not n:
        return {"n": 0}
    interval = binomtest(k, n).proportion_ci(method="wilson")
    return {"n": n, "value": k / n, "wilson_95": [interval.low, interval.high]}


def comparisons() -> pl.DataFrame:
    """Return all questions of a template with three fillings and options that say nothing."""
    properties = ("mass", "density", "hardness", "price", "lustre", "age")
    things = ("iron", "gold", "zinc", "tin", "lead", "nickel", "cobalt", "copper", "silver", "radium")
    stems = [f"Is the {a} of {b} larger than that of {c}?" for a in properties for b, c in permutations(things, 2)]
    rows = [(f"{i:03}", stem, ["Yes", "No"], f"comparisons:{i + 1}") for i, stem in enumerate(stems)]
    return pl.DataFrame(rows, schema=["id", "question", "options", "source"], orient="row")


def templated(seed: int) -> Row:
    """Count what is found where no question leaked, only templates are shared."""
    reference = PROJECT_ROOT / "data" / "reference"
    mixed = comparisons().sample(fraction=1, shuffle=True, seed=seed)
    cases = {
        "embedded pool": tuple(
            read(reference / name, format="auto") for name in ("pool.jsonl", "in_domain_test.jsonl")
        ),
        "three fillings": (mixed[108:], mixed[:108]),
    }
    return {
        name: share(contaminated(pool, evaluation, PoolConfig()).height, pool.height)
        for name, (pool, evaluation) in cases.items()
    }


def measure(path: Path, n: int, seed: int) -> Row:
    """Plant, look, count."""
    rows = read(path).sort("id").sample(fraction=1, shuffle=True, seed=seed)
    evaluation, clean = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    planted = list(plants(evaluation, n, random.Random(f"{path.name}-{seed}")))
    pool = pl.concat([clean, pl.DataFrame(planted, schema=clean.schema)])
    start = time.perf_counter()
    evidence = {hit["id"]: hit for hit in contaminated(pool, evaluation, PoolConfig()).to_dicts()}
    spent = time.perf_counter() - start
    by_id = {row["id"]: row for row in evaluation.to_dicts()}
    own = {row["id"]: row for row in clean.to_dicts()}
    found = [(own[i], by_id[hit["evaluation_id"]], hit) for i, hit in evidence.items() if i in own]
    alarms = [pair for pair in found if not is_twin(*pair[:2])]
    kinds = {}
    for kind in KINDS:
        leaks = [row for row in planted if row["kind"] == kind]
        if not leaks:
            continue
        hits = sum(row["id"] in evidence for row in leaks)
        kinds[kind] = {"recall": share(hits, len(leaks)), "precision": share(hits, hits + len(alarms))}
        kinds[kind]["right_question"] = share(
            sum(row["id"] in evidence and evidence[row["id"]]["evaluation_id"] == row["leak"] for row in leaks), hits
        )
    return {
        "evaluation": len(evaluation),
        "clean": len(clean),
        "twins": len(found) - len(alarms),
        "false_alarms": share(len(alarms), len(clean)),
        "seconds": spent,
        "kinds": kinds,
        "shown_false_alarms": [
            {"score": hit["score"], "pool": pair[0]["question"][-200:], "evaluation": pair[1]["question"][-200:]}
            for *pair, hit in alarms[:SHOWN]
        ],
        "shown_misses": [
            {
                "kind": row["kind"],
                "planted": row["question"][-200:],
                "evaluation": by_id[row["leak"]]["question"][-200:],
            }
            for row in [row for row in planted if row["id"] not in evidence][:SHOWN]
        ],
    }


def main() -> None:
    """Measure all files, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published files, at any depth")
    parser.add_argument("--plants", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    paths = sorted([*options.data.rglob("*.jsonl"), *options.data.rglob("test.parquet")])
    report = {
        "machine": describe_machine("decontamination", ("polars", "numpy", "scipy")),
        "setting": {"plants": options.plants, "pool": PoolConfig().model_dump()},
        "seeds": {
            seed: {
                "templates": templated(seed),
                "files": {
                    path.stem if path.suffix == ".jsonl" else "mmlu_pro": measure(path, options.plants, seed)
                    for path in paths
                },
            }
            for seed in options.seeds
        },
    }
    store_report(report, options.output)


if __name__ == "__main__":
    main()
