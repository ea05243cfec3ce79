"""A small catalogue, rows for it, and the program that tests start as further processes."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pyarrow as pa

from pipeline.paths import PROJECT_ROOT
from pipeline.store import shards
from pipeline.store.shards import ShardedTables
from pipeline.store.store import Store
from pipeline.table import FLOATS, ID, SAMPLE, TOKENS, table

LINES = table(line=(pa.int64(), False, "number"), text=(pa.large_string(), False, "text"))
SCORES = table(id=ID, sample=SAMPLE, neurons=(TOKENS, False, "ids"), scores=(FLOATS, False, "scores"))
REASONS = table(id=ID, reason=(pa.large_string(), True, "why not"))
CATALOGUE = {"lines": {"lines": LINES}, "scores": {"scores": SCORES, "reasons": REASONS, "totals": LINES}}
SHARDED = ("scores", "reasons")
ROWS = pl.DataFrame({"line": [1, 2], "text": ["a", "b"]})


def write_lines(store, fingerprint="f", rows=ROWS):
    with store.write("lines", fingerprint, {"limit": 1}, {"inputs": {}}) as writer:
        writer.append("lines", rows)
    return store.find("lines", fingerprint)


def rows_of(questions, keys):
    """Rows that depend on the key: two scores of a question, and any number of reasons."""
    found = {question: hashlib.sha256(f"{question} {keys[question]}".encode()).digest() for question in questions}
    pairs = [(question, sample) for question in questions for sample in (1, 0)]
    scores = pl.DataFrame(
        {
            "id": [question for question, _ in pairs],
            "sample": [sample for _, sample in pairs],
            "neurons": [[found[question][0], 256 + found[question][1]] for question, _ in pairs],
            "scores": [[found[question][2 + sample] / 8] for question, sample in pairs],
        },
        schema={"id": pl.String, "sample": pl.Int64, "neurons": pl.List(pl.Int64), "scores": pl.List(pl.Float64)},
    )
    reasons = [
        (question, f"{found[question][5]}-{number}")
        for question in questions
        for number in range(found[question][4] % 3)
    ]
    return {"scores": scores, "reasons": pl.DataFrame(reasons, {"id": pl.String, "reason": pl.String}, orient="row")}


def make(store, keys, fingerprint, recipe="r", pause=0.0):
    """Make the artifact ``scores`` of some questions; return which ones were computed in each call."""
    calls = []

    def compute(questions, done):
        calls.append(list(questions))
        time.sleep(pause)
        done(len(questions))
        return rows_of(questions, keys)

    with store.write("scores", fingerprint, {}, {}) as writer:
        earlier = ShardedTables(writer, SHARDED, lambda digest: store.of_recipe("scores", digest))
        earlier.make(keys, {"recipe": recipe}, compute)
    return calls


def start(*arguments):
    """Start another process that does ``main`` with these arguments."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, cwd=PROJECT_ROOT, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=60.0):
    """Wait until something is the case."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def main(action, root, *arguments):
    """Write artifacts in a process of its own."""
    store = Store(Path(root), CATALOGUE)
    if action == "lines":  # writes the artifact while all the others do
        fingerprint, run, n_writers = arguments
        with store.write("lines", fingerprint, {}, {}) as writer:
            writer.append("lines", ROWS)
            (store.root / f"{run}.ready").touch()
            wait_for(lambda: len(list(store.root.glob("*.ready"))) == int(n_writers))
        store.run(run).show("lines", fingerprint)
    elif action == "scores":
        shards.QUESTIONS_PER_SHARD = 4
        make(store, {f"q{number}": "k" for number in range(int(arguments[0]))}, "f", pause=0.01)
    else:  # many artifacts, one after the other
        for number in range(int(arguments[0])):
            make(store, {"q": str(number)}, f"f{number}")


if __name__ == "__main__":
    main(*sys.argv[1:])
