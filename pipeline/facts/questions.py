"""Ask for the facts of ``relations.yaml``, each once: in one direction, and with four options or none.

All facts about one thing (an element's symbol and number, a unit's quantity and symbol) are on one side of pool and
test, so that no test asks for a pool's fact the other way round. Pinned by ``tests/test_facts.py``.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import yaml

from pipeline.prompts import LETTERS

_BASES = "UCAG"
_AMINO_ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
"""The standard genetic code (NCBI translation table 1), third base fastest; * is a stop."""
GENETIC_CODE = dict(zip((a + b + c for a in _BASES for b in _BASES for c in _BASES), _AMINO_ACIDS, strict=True))
OUT_OF_DOMAIN = "geography"
_N_NUMBERED = 40
"""Elements whose atomic number is asked for: up to zirconium."""
_N_OPTIONS = 4
_REVERSE_SHARE = 0.5
_OPEN_SHARE = 0.85
"""Share of open questions where a fact can be asked for either way: small models mistake the letters of options."""
_TEST_SHARE = 0.28
"""Share of things whose facts are held out."""


class FactQuestion(NamedTuple):
    """A question as its file has it."""

    question: str
    options: list[str]
    """None for an open question."""
    answer: str
    """Letter of the right option, or the text of an open answer."""
    domain: str
    task: str
    """Name of the relation."""


class Relation(NamedTuple):
    """Facts of one kind and how they are asked for."""

    relation: str
    domain: str
    facts: dict[str, str]
    """What is told of each thing."""
    forward: str
    reverse: str | None = None
    about: Literal["thing", "value"] = "thing"
    """Which of the two is told of; it goes by this to pool or test."""
    open: tuple[Literal["forward", "reverse"], ...] = ()


@cache
def relations() -> list[Relation]:
    """Return all relations."""
    tables: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("relations.yaml").read_text("utf-8"))
    facts = {table["relation"]: table.get("facts", {}) for table in tables}
    facts["atomic_number"] = {
        name: str(number) for number, name in enumerate(list(facts["element_symbol"])[:_N_NUMBERED], start=1)
    }
    names = facts["amino_acid_letter"]
    facts["codon"] = {codon: names[letter] for codon, letter in GENETIC_CODE.items() if letter != "*"}
    return [Relation(**table | {"facts": facts[table["relation"]]}) for table in tables]


def make_questions(seed: int = 0) -> dict[str, list[FactQuestion]]:
    """Return the questions of pool, in-domain test and out-of-domain test, by file name."""
    files: dict[str, list[FactQuestion]] = {"pool": [], "in_domain_test": [], "out_of_domain_test": []}
    for relation in relations():
        draw = Random(f"{seed} {relation.relation}")
        for thing, value in relation.facts.items():
            about = thing if relation.about == "thing" else value
            is_held_out = Random(f"{seed} {about}").random() < _TEST_SHARE
            file = "in_domain_test" if is_held_out else "pool"
            questions = files["out_of_domain_test" if relation.domain == OUT_OF_DOMAIN else file]
            questions.append(_ask(relation, thing, draw, place=_rarest_place(questions, draw)))
    return files


def _rarest_place(questions: Iterable[FactQuestion], draw: Random) -> int:
    """Return a place that the right option has had least often."""
    places = Counter(LETTERS.index(question.answer) for question in questions if question.options)
    fewest = min(places[place] for place in range(_N_OPTIONS))
    return draw.choice([place for place in range(_N_OPTIONS) if places[place] == fewest])


def _ask(relation: Relation, thing: str, draw: Random, place: int) -> FactQuestion:
    """Return the one question for a fact; with options, the right one is at ``place``."""
    value = relation.facts[thing]
    template, answer, answers = relation.forward, value, list(relation.facts.values())
    direction = "forward"
    if relation.reverse and draw.random() < _REVERSE_SHARE:
        template, answer, answers, direction = relation.reverse, thing, list(relation.facts), "reverse"
    stem = template.format(thing=thing, value=value)
    if _is_letter(answer) or (direction in relation.open and draw.random() < _OPEN_SHARE):
        return FactQuestion(stem, [], answer, relation.domain, relation.relation)
    options = draw.sample(_distractors(answers, answer), _N_OPTIONS - 1)
    options.insert(place, answer)
    return FactQuestion(stem, options, LETTERS[place], relation.domain, relation.relation)


def _distractors(values: Iterable[str], answer: str) -> list[str]:
    """Return other values of the kind; single letters would pass for the letter of an option."""
    return sorted({value for value in values if value != answer and not _is_letter(value)})


def _is_letter(value: str) -> bool:
    return len(value) == 1 and value.isalpha()
