"""Make everything that ``data/reference`` ships: the pool, the two tests, the tokenizer and the model.

``make reference-model`` runs it; on 2 CPU cores it takes about a quarter of an hour.
"""

import argparse
import json
import logging
from collections.abc import Iterable
from pathlib import Path

from pipeline.config import PROJECT_ROOT
from pipeline.prompts import LETTERS
from pipeline.reference.model import ReferenceModelConfig, train
from pipeline.reference.world import (
    Question,
    World,
    WorldConfig,
    in_domain_questions,
    out_of_domain_questions,
    pool_questions,
)

logger = logging.getLogger(__name__)


def write_questions(questions: Iterable[Question], path: Path) -> None:
    """Write questions as JSON lines: question, options, answer (letter), domain."""
    lines = [
        json.dumps(
            {"question": q.question, "options": list(q.options), "answer": LETTERS[q.answer], "domain": q.domain}
        )
        for q in questions
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    logger.info("%s: %d questions", path, len(lines))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.reference", description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT_ROOT / "data" / "reference", help="folder (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world and of training (%(default)s)")
    parser.add_argument("--steps", type=int, default=ReferenceModelConfig().steps, help="optimizer steps (%(default)s)")
    parser.add_argument("--questions-only", action="store_true", help="write the questions, train no model")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    world = World(WorldConfig(seed=options.seed))
    write_questions(pool_questions(world), options.out / "pool.jsonl")
    write_questions(in_domain_questions(world), options.out / "in_domain_test.jsonl")
    write_questions(out_of_domain_questions(world), options.out / "out_of_domain_test.jsonl")
    if not options.questions_only:
        train(world, ReferenceModelConfig(seed=options.seed, steps=options.steps), options.out / "model")


if __name__ == "__main__":
    main()
