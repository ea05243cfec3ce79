"""The extractor on outputs written by hand; ``corpus/README.md`` says how they are noted."""

from pathlib import Path

import pytest
import yaml

from pipeline.answers.extract import extract_answer
from pipeline.prompts import LETTERS

CORPUS = Path(__file__).parent / "corpus"
OPTIONS = yaml.safe_load((CORPUS / "options.yaml").read_text(encoding="utf-8"))
CATEGORIES = {
    category: rows
    for path in sorted(CORPUS.glob("*.yaml"))
    if path.name != "options.yaml"
    for category, rows in yaml.safe_load(path.read_text(encoding="utf-8")).items()
}


def stated(response, options, finished):
    """Write an extraction like the corpus does: a letter, an open answer, or a (reason)."""
    found = extract_answer(response, options, finished=finished)
    if found.answer is None:
        return f"({found.rule})"
    return LETTERS[found.index] if options else found.answer


def failures(rows, finished=True):
    found = [(stated(output, OPTIONS[name], finished), output, expected) for name, output, expected, *_ in rows]
    return [f"{output!r} says {expected}, read {got}" for got, output, expected in found if got != expected]


@pytest.mark.parametrize("category", CATEGORIES)
def test_category(category):
    assert not failures(CATEGORIES[category], finished=category != "unfinished")


def test_share_right():
    wrong = [line for category, rows in CATEGORIES.items() for line in failures(rows, category != "unfinished")]
    n_rows = sum(map(len, CATEGORIES.values()))
    assert n_rows >= 890
    assert 1 - len(wrong) / n_rows >= 0.995, "\n".join(wrong)
