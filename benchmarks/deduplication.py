"""What finding near-duplicates costs and finds on synthetic questions: ``python -m benchmarks.deduplication``.

Half of the rows are prose of words with Zipf's frequencies, half come from ``N_TEMPLATES`` templates with two fillings
each, so that most of a row is shared with thousands of others. ``--planted`` rows are copies of others with one or two
words of the stem replaced (words of the template in templated rows) and the options shuffled; all other pairs are to be
told apart. Wall and CPU time and the peak of resident memory are those of ``near_duplicates`` and of ``stem_families``
on the whole table, in one process.
"""

import argparse
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.machine import RESULTS, describe_machine, store_report
from pipeline.deduplication.config import PoolConfig
from pipeline.deduplication.families import stem_families
from pipeline.deduplication.features import Features, RarityWeights
from pipeline.deduplication.near_duplicates import near_duplicates, similarity

OUTPUT = RESULTS / "deduplication.json"
N_TEMPLATES = 12
_SYLLABLES = [a + b for a in "bcdfghjklmnprstvz" for b in "aeiou"]

Row = tuple[str, str, list[str]]


def vocabulary(rng: random.Random, n: int) -> list[str]:
    """Return ``n`` different made-up words."""
    words: dict[str, None] = {}
    while len(words) < n:
        words["".join(rng.choices(_SYLLABLES, k=rng.choice((2, 3, 4))))] = None
    return list(words)


def questions(n: int, n_planted: int, seed: int) -> tuple[list[Row], dict[str, str]]:
    """Return rows and, for each planted copy, the id of its original."""
    rng = random.Random(seed)
    words = vocabulary(rng, 30_000)
    zipf = [1 / rank for rank in range(1, len(words) + 1)]
    templates = [rng.sample(words[:2_000], 14) for _ in range(N_TEMPLATES)]
    stems: list[list[str]] = []
    options = [rng.choices(words, k=4) for _ in range(n)]
    for row in range(n - n_planted):
        if row % 2:
            stem = [*rng.choice(templates)]
            stem[4], stem[9] = rng.sample(words[2_000:], 2)
        else:
            stem = rng.choices(words, zipf, k=rng.randint(12, 40))
        stems.append(stem)
    originals = rng.sample(range(n - n_planted), n_planted)
    for copy, original in enumerate(originals, start=n - n_planted):
        stem = [*stems[original]]
        places = [place for place in range(len(stem)) if not original % 2 or place not in (4, 9)]
        for place in rng.sample(places, rng.randint(1, 2)):
            stem[place] = rng.choice(words)
        stems.append(stem)
        options[copy] = rng.sample(options[original], 4)
    ids = [f"{row:07}" for row in range(n)]
    planted = {ids[copy]: ids[original] for copy, original in enumerate(originals, start=n - n_planted)}
    return [(i, " ".join(stem), chosen) for i, stem, chosen in zip(ids, stems, options, strict=True)], planted


def timed(run: Callable[[], pl.DataFrame]) -> tuple[pl.DataFrame, dict[str, float]]:
    """Return the result of a call, and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def similarities(rows: list[Row], planted: dict[str, str]) -> dict[str, float]:
    """Return the exact similarity of each planted copy with its original."""
    features = {i: Features.of(question, options, PoolConfig().ngram_size) for i, question, options in rows}
    weights = RarityWeights(features.values())
    return {copy: similarity(features[copy], features[original], weights) for copy, original in planted.items()}


def measure(n: int, n_planted: int, seed: int) -> dict[str, Any]:
    """Return costs, recall and precision."""
    rows, planted = questions(n, n_planted, seed)
    pool = pl.DataFrame(
        rows, schema={"id": pl.String, "question": pl.String, "options": pl.List(pl.String)}, orient="row"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    groups, cost = timed(lambda: near_duplicates(pool, PoolConfig()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    families, family_cost = timed(lambda: stem_families(pool))
    found = dict(groups.filter(pl.col("id") != pl.col("group")).select("id", "group").rows())
    right = {copy for copy, original in planted.items() if found.get(copy) == original}
    near = {
        copy for copy, value in similarities(rows, planted).items() if value >= PoolConfig().near_duplicate_threshold
    }
    sizes = families["family"].value_counts(sort=True)["count"]
    return {
        "near_duplicates": cost
        | {
            "peak_rss_mib": peak / 1024,
            "rss_before_mib": before / 1024,
            "recall_of_all_planted": len(right) / n_planted,
            "planted_at_the_threshold_or_above": len(near),
            "recall_of_those": len(near & right) / len(near),
            "precision": len(right) / max(len(found), 1),
            "found": len(found),
        },
        "stem_families": family_cost | {"largest": sizes.head(N_TEMPLATES + 2).to_list(), "families": len(sizes)},
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--planted", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    machine = describe_machine("deduplication", ("rensa", "polars", "numpy", "scipy"))
    setting = {"rows": options.rows, "planted": options.planted, "seed": options.seed}
    report = {"machine": machine, "setting": setting, **measure(options.rows, options.planted, options.seed)}
    store_report(report, options.output)


if __name__ == "__main__":
    main()
