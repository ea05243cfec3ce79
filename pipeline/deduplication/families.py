"""Stem families: questions of one template with other fillings, found from word counts alone.

The words of a stem, fillings by form (numbers, formulas, SMILES, sequences) left out, are sorted by how many stems hold
them and put in a prefix tree, as FT-tree does with log lines (Zhang et al., "Syslog processing for switch failure
diagnosis and prediction in datacenter networks", IWQoS 2017). Template words are more frequent than fillings, so the
stems of a template share a path until the fillings make it branch; the path up to there is the template. A template
whose fillings are more frequent in the whole pool than its own words is therefore not found.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

import polars as pl

from pipeline.deduplication.features import is_plain, words

MIN_MEMBERS: Final = 5
"""Fewer stems than this on a path are no evidence of a template; own choice."""
MIN_BRANCHES: Final = 4
"""A path branches where no continuation holds more than one in this many of its stems; own choice."""
MIN_COVERAGE: Final = 0.5
"""Share of a stem's words that a template must hold: "what is the" alone is no template; own choice."""
MAX_NAME_CHARS: Final = 120


class Template(NamedTuple):
    """The wording of a stem without its fillings."""

    words: tuple[str, ...]
    """Words of the template; of the whole stem where none was found."""
    found: bool
    """Whether at least ``MIN_MEMBERS`` stems share it."""


def stem_families(pool: pl.DataFrame) -> pl.DataFrame:
    """Return ``id``, ``family`` and ``template`` for every question of ``pool`` (columns id and question).

    ``family`` is 12 hex digits of a hash of the template's words; ``template`` is the first member's stem (by id) with
    its fillings as "…", shortened. A stem that shares its template with no other is a family of its own. Rows come
    sorted by id; the order of ``pool`` does not matter.
    """
    pool = pool.select("id", "question").sort("id")
    stems = [words(question) for question in pool["question"]]
    found = templates(stems)
    names: dict[tuple[str, ...], str] = {}
    for stem, template in zip(stems, found, strict=True):
        names.setdefault(template.words, _name(stem, template.words))
    return pl.DataFrame(
        {
            "id": pool["id"],
            "family": [hashlib.sha256("\0".join(template.words).encode()).hexdigest()[:12] for template in found],
            "template": [names[template.words] for template in found],
        },
        schema={"id": pl.String, "family": pl.String, "template": pl.String},
    )


def templates(stems: Sequence[Sequence[str]]) -> list[Template]:
    """Return the template of each stem, given as words. How often a stem is repeated does not matter."""
    different = sorted({tuple(stem) for stem in stems})
    found = dict(zip(different, _different_templates(different), strict=True))
    return [found[tuple(stem)] for stem in stems]


def _different_templates(stems: Sequence[tuple[str, ...]]) -> list[Template]:
    paths = _paths(stems)
    # Where fillings by form are few, stems that differ in them only are one family, however few there are.
    found = [
        Template(path if len(path) >= MIN_COVERAGE * len(set(stem)) else stem, found=False)
        for stem, path in zip(stems, paths, strict=True)
    ]
    nodes = [(list(range(len(paths))), 0)] if len(paths) >= MIN_MEMBERS else []
    while nodes:
        members, depth = nodes.pop()
        children = defaultdict(list)
        for member in members:
            if len(paths[member]) > depth:
                children[paths[member][depth]].append(member)
        if MIN_BRANCHES * max(map(len, children.values()), default=0) <= len(members):
            for member in members:
                if not found[member].found and depth >= max(1, MIN_COVERAGE * len(paths[member])):
                    found[member] = Template(paths[member][:depth], found=True)
        nodes += [(child, depth + 1) for child in children.values() if len(child) >= MIN_MEMBERS]
    return found


def _paths(stems: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return each stem's words that are no fillings by form, those that most stems hold first."""
    vocabularies = [{word for word in stem if is_plain(word)} for stem in stems]
    counts = Counter(word for vocabulary in vocabularies for word in vocabulary)
    return [tuple(sorted(vocabulary, key=lambda word: (-counts[word], word))) for vocabulary in vocabularies]


def _name(stem: Sequence[str], template: Sequence[str]) -> str:
    kept = [word if word in template else "…" for word in stem]
    shown = [word for before, word in zip(["", *kept], kept, strict=False) if word != "…" or before != "…"]
    text = " ".join(shown)
    return text if len(text) <= MAX_NAME_CHARS else f"{text[: MAX_NAME_CHARS - 1]}…"
