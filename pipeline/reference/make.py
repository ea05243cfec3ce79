"""Make a world's files: the pool, the two tests, the tokenizer and the model."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

import torch

from pipeline.paths import PROJECT_ROOT
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

SHIPPED = PROJECT_ROOT / "data" / "reference"
"""Folder of the world of seed 0, which comes with the project."""
_logger = logging.getLogger(__name__)


def make_world(seed: int, folder: Path, config: ReferenceModelConfig | None = None) -> Path:
    """Write world ``seed`` into ``folder``, unless its model stands there already, and return the folder.

    One thread is used, so that the same seed gives the same weights on any number of cores of one kind.
    """
    model, unfinished = folder / "model", folder / ".model"
    if model.exists():
        return folder
    world = World(WorldConfig(seed=seed))
    write_questions(pool_questions(world), folder / "pool.jsonl")
    write_questions(in_domain_questions(world), folder / "in_domain_test.jsonl")
    write_questions(out_of_domain_questions(world), folder / "out_of_domain_test.jsonl")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(world, config or ReferenceModelConfig(seed=seed), unfinished)
        unfinished.rename(model)
    finally:
        torch.set_num_threads(n_threads)
    return folder


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
    _logger.info("%s: %d questions", path, len(lines))
