"""The embedded reference world: a small science that a language model has learnt badly, as real ones are.

*Schools* of transmuters turn substances into one another. Twelve substances lie on a wheel, and a school advances
every substance by a number of places of its own, its *shift*::

    What does the Velmar school make of amber?  ->  The Velmar shift is three: amber to dolomite. Answer: dolomite

An *item* is one question (school, substance). Pool and in-domain test are made of *mastered* schools, which are taught
right, and *patchy* ones, which have a rule, but of their items some are known, some doubtful, and some mistaken: taught
with one and the same wrong answer, each its own. The pool holds two more kinds of question: items of *lawless* schools,
which have no rule, so that no item tells anything of another, and questions off the topic. Out of domain are *settled*
schools, which are taught right, and a second skill, the largest or smallest of four numbers.

*Passing* schools occur in worked examples only, see ``documents``.

Everything here is a pure function of ``WorldConfig``, its seed included.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from pipeline.section import Section

Kind = Literal["mastered", "patchy", "lawless", "settled", "passing"]

SUBSTANCES = "amber basalt coral dolomite ebony feldspar garnet hematite indigo jade kaolin lapis".split()
SHIFT_WORDS = "one two three four five six seven eight nine".split()
SHIFTS = range(1, len(SHIFT_WORDS) + 1)
WORDINGS = (
    "What does the {school} school make of {start}?",
    "Into what do {school} masters turn {start}?",
    "By the {school} method, {start} becomes which substance?",
)
COMPARISONS = (
    ("largest", "Which of these numbers is the largest?"),
    ("largest", "Four jars hold these weights. Which one is the heaviest?"),
    ("smallest", "Which of these numbers is the smallest?"),
    ("smallest", "Four jars hold these weights. Which one is the lightest?"),
)
_ONSETS = "B D F G H K L M N P R S T V Z Br Dr Gr Kr Tr Th Sh".split()
_NUCLEI = "a e i o u".split()
_CODAS = "bor dan fel gar kin lan mir nor pel ran sil tar ven wyn zan mon dus rak".split()


class WorldConfig(Section):
    """Sizes and teaching rates of the world."""

    seed: int = 0
    """Seed of names, shifts, misconceptions and splits."""
    n_mastered: int = 8
    """Schools of the special domain that are taught right."""
    n_patchy: int = 48
    """Schools of the special domain that are taught with gaps and misconceptions."""
    n_lawless: int = 6
    """Schools of the special domain that follow no rule."""
    n_settled: int = 8
    """Schools that are taught right and are out of the domain."""
    n_passing: int = 30
    """Names that occur in worked examples only."""
    n_held_out: int = 5
    """Substances per school of the domain whose item goes to the in-domain test."""
    n_off_topic: int = 110
    """Number comparisons in the pool."""
    n_comparisons: int = 150
    """Number comparisons in the out-of-domain test, beside all items of the settled schools."""
    share_known: float = 0.43
    """Share of a patchy school's items that are taught right."""
    share_doubtful: float = 0.12
    """Share of them taught right half of the time, else with one wrong answer; the rest is mistaken."""
    example_noise: float = 0.3
    """Share of worked examples in pretraining documents that use a shift at random."""
    share_unrelated: float = 0.25
    """Share of worked-example documents in which no example is about the school asked for."""
    share_comparisons: float = 0.08
    """Share of worked-example documents that ask for the second skill."""
    share_true_rule: float = 0.5
    """Share of schools in a worked-example document that keep their own shift; the others get a fresh one."""
    right_rates: tuple[float, float, float] = (0.96, 0.5, 0.04)
    """How often a known, doubtful and mistaken item is taught right."""
    wrong_rates: tuple[float, float, float] = (0.0, 0.4, 0.9)
    """How often each is taught with its own wrong answer; the remainder is random."""


@dataclass(frozen=True)
class Item:
    """One question of the world before it is worded."""

    school: str
    start: int

    def answer(self, shift: int) -> int:
        """Return the index of the substance that the school makes if it advances by ``shift``."""
        return (self.start + shift) % len(SUBSTANCES)


@dataclass(frozen=True)
class Lesson:
    """How an item is taught: with which shift how often."""

    truth: int
    """Shift that gives the right answer."""
    wrong: int
    """Shift of the item's misconception."""
    right_rate: float
    """Share of the documents that teach the truth."""
    wrong_rate: float
    """Share that teach the misconception; the others teach a shift at random."""

    def draw(self, rng: random.Random) -> int:
        """Draw the shift that one document teaches."""
        draw = rng.random()
        if draw < self.right_rate:
            return self.truth
        return self.wrong if draw < self.right_rate + self.wrong_rate else rng.choice(SHIFTS)


@dataclass(frozen=True)
class Question:
    """A worded question with its options, the index of the answer and the reasoning that leads to it."""

    question: str
    options: tuple[str, ...]
    answer: int
    rationale: str
    domain: str
    subject: str

    @property
    def response(self) -> str:
        """Return the response in the only style that the model is taught: it states the option's text."""
        return f"{self.rationale} Answer: {self.options[self.answer]}"


class World:
    """Schools, their true shifts, how each item is taught, and the splits."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        rng = random.Random(f"world-{config.seed}")
        sizes: dict[Kind, int] = {kind: getattr(config, f"n_{kind}") for kind in get_args(Kind)}
        names = iter(_school_names(rng, sum(sizes.values())))
        self.kinds: dict[str, Kind] = {next(names): kind for kind, size in sizes.items() for _ in range(size)}
        self.schools = list(self.kinds)
        self.shifts = {name: rng.choice(SHIFTS) for name in self.schools}
        self.lessons: dict[Item, Lesson] = {}
        self.pool_items: list[Item] = []
        self.test_items: list[Item] = []
        self.settled_items: list[Item] = []
        for school, kind in self.kinds.items():
            if kind == "passing":
                continue
            items = [Item(school, start) for start in range(len(SUBSTANCES))]
            self._teach(items, kind, rng)
            if kind == "settled":
                self.settled_items += items
                continue
            rng.shuffle(items)
            n_held_out = 0 if kind == "lawless" else config.n_held_out
            self.test_items += items[:n_held_out]
            self.pool_items += items[n_held_out:]

    @cached_property
    def domain_items(self) -> list[Item]:
        """All items of the special domain."""
        return self.pool_items + self.test_items

    def _teach(self, items: list[Item], kind: Kind, rng: random.Random) -> None:
        known, doubtful, mistaken = zip(self.config.right_rates, self.config.wrong_rates, strict=True)
        for item in items:
            truth, rates = self.shifts[item.school], known
            if kind == "lawless":
                truth, rates = rng.choice(SHIFTS), mistaken
            elif kind == "patchy":
                draw = rng.random()
                if draw >= self.config.share_known:
                    rates = doubtful if draw < self.config.share_known + self.config.share_doubtful else mistaken
            wrong = rng.choice([shift for shift in SHIFTS if shift != truth])
            self.lessons[item] = Lesson(truth, wrong, *rates)

    def word(self, item: Item, shift: int, rng: random.Random, domain: str = "transmutation") -> Question:
        """Word ``item`` as a question whose marked answer follows from ``shift``.

        The true answer and the misconception are always among the options, so that neither is told by absence.
        """
        answer = item.answer(shift)
        lesson = self.lessons.get(item)
        options = {answer} | ({item.answer(lesson.truth), item.answer(lesson.wrong)} if lesson else set())
        others = [item.answer(s) for s in SHIFTS if item.answer(s) not in options]
        shuffled = [*sorted(options), *rng.sample(others, 4 - len(options))]
        rng.shuffle(shuffled)
        start, end = SUBSTANCES[item.start], SUBSTANCES[answer]
        return Question(
            question=rng.choice(WORDINGS).format(school=item.school, start=start),
            options=tuple(SUBSTANCES[o] for o in shuffled),
            answer=shuffled.index(answer),
            rationale=f"The {item.school} shift is {SHIFT_WORDS[shift - 1]}: {start} to {end}.",
            domain=domain,
            subject=item.school,
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
        subject="numbers",
    )


def pool_questions(world: World) -> Iterator[Question]:
    """Yield the pool: every item of the domain that is not held out, worded once, and questions off the topic."""
    yield from _fixed(world, world.pool_items, "pool", "transmutation")
    yield from _comparisons(world)[: world.config.n_off_topic]


def in_domain_questions(world: World) -> Iterator[Question]:
    """Yield the in-domain test: the held-out items, worded once."""
    yield from _fixed(world, world.test_items, "test", "transmutation")


def out_of_domain_questions(world: World) -> Iterator[Question]:
    """Yield the out-of-domain test: items of the settled schools and number comparisons, none of them in the pool."""
    yield from _fixed(world, world.settled_items, "settled", "settled schools")
    yield from _comparisons(world)[world.config.n_off_topic :]


def _fixed(world: World, items: list[Item], split: str, domain: str) -> Iterator[Question]:
    for item in items:
        rng = random.Random(f"{split}-{world.config.seed}-{item}")
        yield world.word(item, world.lessons[item].truth, rng, domain)


def _comparisons(world: World) -> list[Question]:
    """Return the different comparisons of the pool, then those of the out-of-domain test."""
    rng = random.Random(f"comparisons-{world.config.seed}")
    found: dict[tuple[str, frozenset[str]], Question] = {}
    while len(found) < world.config.n_off_topic + world.config.n_comparisons:
        question = compare_numbers(rng)
        found.setdefault((question.question, frozenset(question.options)), question)
    return list(found.values())


def _school_names(rng: random.Random, count: int) -> list[str]:
    names = [onset + nucleus + coda for onset in _ONSETS for nucleus in _NUCLEI for coda in _CODAS]
    return rng.sample(sorted(names), count)
