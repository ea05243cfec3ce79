"""The documents that the reference model is trained on: a question alone, or worked examples before a question.

With examples, schools follow their own rule or one drawn for the document, which the examples tell; *passing* schools
occur there only. So the model learns to believe examples about a school more than its memory of an item, if they agree.
"""

import random

from pipeline.reference.world import SHIFTS, SUBSTANCES, Item, Question, World, compare_numbers


def single_document(world: World, rng: random.Random) -> list[Question]:
    """Draw a pretraining document of one question: an item of the domain, a settled item or the second skill."""
    draw = rng.random()
    if draw < 0.15:
        return [compare_numbers(rng)]
    item = rng.choice(world.settled_items if draw < 0.25 else world.domain_items)
    return [world.word(item, world.lessons[item].draw(rng), rng)]


def worked_example_document(world: World, rng: random.Random, n_examples: int) -> list[Question]:
    """Draw a pretraining document of ``n_examples`` worked examples and, last, the question to answer."""
    config, names = world.config, world.schools
    unrelated = rng.random() < config.share_unrelated
    asked = rng.choice([name for name in names if world.kinds[name] != "passing"] if unrelated else names)
    if rng.random() < config.share_comparisons:
        asked = ""
    lawless = bool(asked) and world.kinds[asked] == "lawless" and rng.random() < 0.5
    rules = {name: _document_shift(world, name, rng) for name in names}

    def example(school: str) -> Question:
        if not school:
            return compare_numbers(rng)
        item = Item(school, rng.randrange(len(SUBSTANCES)))
        if lawless and school == asked:
            return world.word(item, world.lessons[item].draw(rng), rng)
        return world.word(item, rng.choice(SHIFTS) if rng.random() < config.example_noise else rules[school], rng)

    related = [not unrelated and (rng.random() < 0.8 or n == 0) for n in range(n_examples)]
    others = [name for name in [*names, "", ""] if name != asked]
    examples = [example(asked if same else rng.choice(others)) for same in related]
    rng.shuffle(examples)
    if not asked:
        return [*examples, compare_numbers(rng)]
    item = Item(asked, rng.randrange(len(SUBSTANCES)))
    shift = world.lessons[item].draw(rng) if unrelated or lawless else rules[asked]
    return [*examples, world.word(item, shift, rng)]


def _document_shift(world: World, school: str, rng: random.Random) -> int:
    if rng.random() < world.config.share_true_rule:
        return world.shifts[school]
    return rng.choice(SHIFTS)
