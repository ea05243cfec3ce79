"""The embedded reference world: a small science whose rules a small language model can learn.

*Schools* of transmuters turn substances into one another. Thirty substances lie on a wheel, and every
school advances a substance by a number of places of its own, its *shift*::

    forward    A Velmar adept transmutes amber. Which substance results?
    backward   A Velmar adept obtained jade. Which substance was used?

An *item* is one question (school, start, direction). Three kinds of school exist: *studied* schools are the
special domain (pool and in-domain test), *settled* schools are known well and are, with the second skill
(the largest or smallest of four numbers), the out-of-domain test, and *passing* schools are names that occur in
worked examples only.

What a model can know of the studied schools is set by how they are taught in the pretraining documents:
an item is *easy* (nearly always taught right), *medium* (half of the time) or *misconceived* (mostly taught
with one and the same wrong shift). Documents with worked examples teach the model to take a school's shift
from the examples, whatever it was taught about the school alone. How much of the wrong lessons a model keeps item by
item depends on its size and training; the README says what the shipped one kept.

Everything here is a pure function of ``WorldConfig``, its seed included.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

Direction = Literal["forward", "backward"]
Difficulty = Literal["easy", "medium", "misconceived"]

SUBSTANCES = (
    "amber basalt coral dolomite ebony feldspar garnet hematite indigo jade kaolin lapis mica nickel onyx "
    "pearl quartz ruby sulfur topaz umber vanadium willow xenon yttrium zinc chalk flint iron copper"
).split()
SHIFT_WORDS = "one two three four five six seven eight".split()
FORWARD = (
    "In the {school} school, what does {start} turn into?",
    "A {school} adept transmutes {start}. Which substance results?",
    "Which substance do {school} masters make out of {start}?",
    "By the {school} method, {start} becomes which substance?",
    "Starting from {start}, what does the {school} art yield?",
    "What is left when {start} is treated the {school} way?",
)
BACKWARD = (
    "In the {school} school, what turns into {start}?",
    "A {school} adept obtained {start}. Which substance was used?",
    "From which substance do {school} masters make {start}?",
    "By the {school} method, which substance becomes {start}?",
    "What does the {school} art need in order to yield {start}?",
    "What was treated the {school} way if {start} is left?",
)
COMPARISONS = (
    ("largest", "Which of these numbers is the largest?"),
    ("largest", "Pick the greatest number."),
    ("largest", "Four jars hold these weights. Which one is the heaviest?"),
    ("smallest", "Which of these numbers is the smallest?"),
    ("smallest", "Pick the least number."),
    ("smallest", "Four jars hold these weights. Which one is the lightest?"),
)
_ONSETS = "B D F G H K L M N P R S T V Z Br Dr Gr Kr Tr Th Sh".split()
_NUCLEI = "a e i o u".split()
_CODAS = "bor dan fel gar kin lan mir nor pel ran sil tar ven wyn zan mon dus rak".split()


class WorldConfig(BaseModel):
    """Sizes and teaching rates of the world."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = 0
    """Seed of names, shifts, difficulties and splits."""
    n_studied: int = 24
    """Schools of the special domain."""
    n_settled: int = 6
    """Schools that the pretraining documents cover fully."""
    n_passing: int = 34
    """Names that occur in worked examples only."""
    n_held_out_starts: int = 8
    """Starting substances per studied school that go to the in-domain test, in both directions."""
    n_out_of_domain: int = 200
    """Out-of-domain questions of each kind (settled schools; numbers)."""
    share_easy: float = 0.45
    """Share of studied items that are taught right."""
    share_medium: float = 0.2
    """Share of studied items that are taught right about half of the time; the rest is misconceived."""
    example_noise: float = 0.25
    """Share of worked examples in pretraining documents that use a wrong shift."""
    share_unrelated: float = 0.2
    """Share of worked-example documents in which no example is about the school asked for."""
    share_true_rule: float = 0.3
    """Share of schools in a worked-example document that keep their own shift; the others get a fresh one."""


@dataclass(frozen=True)
class Item:
    """One question of the world before it is worded: school, substance asked about, direction."""

    school: str
    start: int
    direction: Direction

    def answer(self, shift: int) -> int:
        """Return the index of the answer if the school's shift were ``shift``."""
        step = shift if self.direction == "forward" else -shift
        return (self.start + step) % len(SUBSTANCES)


@dataclass(frozen=True)
class Question:
    """A worded question with its options, the index of the answer and the reasoning that leads to it."""

    question: str
    options: tuple[str, ...]
    answer: int
    rationale: str
    domain: str
    school: str

    @property
    def response(self) -> str:
        """Return the response in the only style that the model is taught: it states the option's text."""
        return f"{self.rationale} Answer: {self.options[self.answer]}"


class World:
    """Schools, their true shifts, how each item is taught, and the splits."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        rng = random.Random(f"world-{config.seed}")
        names = _school_names(rng, config.n_studied + config.n_settled + config.n_passing)
        self.studied = names[: config.n_studied]
        self.settled = names[config.n_studied : config.n_studied + config.n_settled]
        self.schools = names
        self.shifts = {name: rng.randint(1, len(SHIFT_WORDS)) for name in names}
        self.pool_items: list[Item] = []
        self.test_items: list[Item] = []
        self.taught: dict[Item, tuple[Difficulty, int]] = {}
        for school in self.studied:
            self._add_studied_school(school, rng)
        self.settled_items = [item for school in self.settled for item in _items(school, range(len(SUBSTANCES)), 0)]

    def _add_studied_school(self, school: str, rng: random.Random) -> None:
        # A forward item and its inverse state the same fact, so both go to the same side of the split.
        starts = rng.sample(range(len(SUBSTANCES)), len(SUBSTANCES))
        held_out = set(starts[: self.config.n_held_out_starts])
        for start in range(len(SUBSTANCES)):
            pair = _items(school, [start], self.shifts[school])
            (self.test_items if start in held_out else self.pool_items).extend(pair)
            for item in pair:
                wrong = rng.choice([s for s in range(1, len(SHIFT_WORDS) + 1) if s != self.shifts[school]])
                self.taught[item] = (self._difficulty(rng), wrong)

    def _difficulty(self, rng: random.Random) -> Difficulty:
        draw = rng.random()
        if draw < self.config.share_easy:
            return "easy"
        return "medium" if draw < self.config.share_easy + self.config.share_medium else "misconceived"

    def taught_shift(self, item: Item, rng: random.Random) -> int:
        """Draw the shift with which one pretraining document answers ``item``."""
        truth = self.shifts[item.school]
        if item not in self.taught:
            return truth
        difficulty, wrong = self.taught[item]
        right_rate, wrong_rate = {"easy": (0.95, 0.0), "medium": (0.55, 0.15), "misconceived": (0.1, 0.7)}[difficulty]
        draw = rng.random()
        if draw < right_rate:
            return truth
        return wrong if draw < right_rate + wrong_rate else rng.randint(1, len(SHIFT_WORDS))

    def word(self, item: Item, shift: int, rng: random.Random, domain: str = "transmutation") -> Question:
        """Word ``item`` as a question whose marked answer follows from ``shift``.

        The true answer and the misconception are always among the options, so that neither is told by absence.
        """
        answer = item.answer(shift)
        options = {answer, item.answer(self.shifts[item.school])}
        if item in self.taught:
            options.add(item.answer(self.taught[item][1]))
        others = [item.answer(s) for s in range(1, len(SHIFT_WORDS) + 1) if item.answer(s) not in options]
        shuffled = [*options, *rng.sample(others, 4 - len(options))]
        rng.shuffle(shuffled)
        template = rng.choice(FORWARD if item.direction == "forward" else BACKWARD)
        link = "to" if item.direction == "forward" else "from"
        start, end = SUBSTANCES[item.start], SUBSTANCES[answer]
        return Question(
            question=template.format(school=item.school, start=start),
            options=tuple(SUBSTANCES[o] for o in shuffled),
            answer=shuffled.index(answer),
            rationale=f"The {item.school} shift is {SHIFT_WORDS[shift - 1]}: {start} {link} {end}.",
            domain=domain,
            school=item.school,
        )


def compare_numbers(rng: random.Random) -> Question:
    """Draw a question of the second skill: the largest or smallest of four numbers."""
    numbers = rng.sample(range(1, 51), 4)
    relation, text = rng.choice(COMPARISONS)
    best = max(numbers) if relation == "largest" else min(numbers)
    return Question(
        question=text,
        options=tuple(str(n) for n in numbers),
        answer=numbers.index(best),
        rationale=f"The {relation} is {best}.",
        domain="numbers",
        school="",
    )


def single_document(world: World, rng: random.Random) -> list[Question]:
    """Draw a pretraining document of one question: studied items, settled items or the second skill."""
    draw = rng.random()
    if draw < 0.2:
        return [compare_numbers(rng)]
    if draw < 0.35:
        item = rng.choice(world.settled_items)
    else:
        item = rng.choice(world.pool_items if rng.random() < 0.73 else world.test_items)
    return [world.word(item, world.taught_shift(item, rng), rng)]


def worked_example_document(world: World, rng: random.Random, n_examples: int) -> list[Question]:
    """Draw a pretraining document of ``n_examples`` worked examples and, last, the question to answer."""
    config = world.config
    unrelated = rng.random() < config.share_unrelated
    asked = rng.choice([*world.studied, *world.settled] if unrelated else world.schools)
    rules = {name: _document_shift(world, name, rng) for name in world.schools}
    others = rng.sample([name for name in world.schools if name != asked], 2)
    questions = []
    for position in range(n_examples):
        related = not unrelated and (rng.random() < 0.75 or position == n_examples - 1)
        school = asked if related else rng.choice(others)
        shift = rng.randint(1, len(SHIFT_WORDS)) if rng.random() < config.example_noise else rules[school]
        questions.append(world.word(_random_item(school, rng), shift, rng))
    rng.shuffle(questions)
    item = _random_item(asked, rng)
    shift = world.taught_shift(item, rng) if unrelated else rules[asked]
    return [*questions, world.word(item, shift, rng)]


def pool_questions(world: World) -> Iterator[Question]:
    """Yield the pool: every studied item that is not held out, worded once."""
    yield from _fixed(world, world.pool_items, "pool", "transmutation")


def in_domain_questions(world: World) -> Iterator[Question]:
    """Yield the in-domain test: the held-out items of the studied schools, worded once."""
    yield from _fixed(world, world.test_items, "test", "transmutation")


def out_of_domain_questions(world: World) -> Iterator[Question]:
    """Yield the out-of-domain test: items of the settled schools and number comparisons, no two alike."""
    rng = random.Random(f"ood-{world.config.seed}")
    items = rng.sample(world.settled_items, world.config.n_out_of_domain)
    yield from _fixed(world, items, "settled", "settled schools")
    seen: set[tuple[str, frozenset[str]]] = set()
    while len(seen) < world.config.n_out_of_domain:
        question = compare_numbers(rng)
        key = (question.question, frozenset(question.options))
        if key not in seen:
            seen.add(key)
            yield question


def _fixed(world: World, items: list[Item], split: str, domain: str) -> Iterator[Question]:
    for item in items:
        rng = random.Random(f"{split}-{world.config.seed}-{item}")
        yield world.word(item, world.shifts[item.school], rng, domain)


def _items(school: str, starts: range | list[int], shift: int) -> list[Item]:
    forward = [Item(school, start, "forward") for start in starts]
    return forward + [Item(school, (start + shift) % len(SUBSTANCES), "backward") for start in starts]


def _random_item(school: str, rng: random.Random) -> Item:
    direction: Direction = "forward" if rng.random() < 0.5 else "backward"
    return Item(school, rng.randrange(len(SUBSTANCES)), direction)


def _document_shift(world: World, school: str, rng: random.Random) -> int:
    if rng.random() < world.config.share_true_rule:
        return world.shifts[school]
    return rng.randint(1, len(SHIFT_WORDS))


def _school_names(rng: random.Random, count: int) -> list[str]:
    names = [onset + nucleus + coda for onset in _ONSETS for nucleus in _NUCLEI for coda in _CODAS]
    return rng.sample(sorted(names), count)
