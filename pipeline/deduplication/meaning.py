"""Whether two questions that read alike ask different things: another number, name, negation or opposite word.

A handful of rules for single words, no model of meaning. They only ever tell questions apart, so that a rule that
misfires keeps a near-duplicate rather than dropping a question. Two numbers that change places are not noticed.
"""

import re
from typing import Final

from pipeline.deduplication.features import is_plain, words

NEGATIONS: Final = frozenset(
    "not no never none nor neither cannot without except excluding least false incorrect wrong 不 没 非 无 未".split()
)
_CONTRACTED = ("n't", "n\u2019t")
OPPOSITES: Final = tuple(
    tuple(pair.split("/"))
    for pair in (
        "increas/decreas maxim/minim high/low large/small larg/small great/small great/less more/less more/fewer "
        "most/few first/last before/after above/below over/under upper/lower up/down left/right inner/outer "
        "inside/outside long/short strong/weak fast/slow early/late best/worst better/worse positiv/negativ "
        "hot/cold heavi/light north/south east/west male/female gain/los oxidi/reduc oxida/reduc anod/cathod "
        "acid/basic accept/reject advantage/disadvantage always/never all/some true/false right/wrong "
        "inhibit/activat"
    ).split()
)
"""Beginnings of words with opposite meanings: "increas" stands for increase, increases, increasing and so on."""
PREFIXES: Final = ("un", "in", "im", "il", "ir", "dis", "non", "non-", "anti", "a")
"""What turns a word into its opposite, as in stable and unstable."""

# Words inside a sentence: neither the first of the text nor one that follows the end of a sentence or a line.
_INSIDE = re.compile(r"(?<=[^\s.?!:;\n])[ \t]+[\"'(\[\u2018\u201c]*(\w[^\s]*)")


def ask_differently(one: str, other: str) -> bool:
    """Return whether two questions, however alike, differ in a word that makes another question of them."""
    sides = [(text, set(words(text))) for text in (one, other)]
    only = [sides[0][1] - sides[1][1], sides[1][1] - sides[0][1]]
    for (text, _), different in zip(sides, only, strict=True):
        if any(map(_tells, different)) or different & _names(text):
            return True
    return any(_opposite(a, b) or _opposite(b, a) for a in only[0] for b in only[1])


def _tells(word: str) -> bool:
    return not is_plain(word) or word in NEGATIONS or word.endswith(_CONTRACTED)


def _names(text: str) -> set[str]:
    """Return the words written with a capital inside a sentence, as ``words`` gives them."""
    return {word for found in _INSIDE.findall(text) if found[0].isupper() for word in words(found)}


def _opposite(a: str, b: str) -> bool:
    if any(b == prefix + a for prefix in PREFIXES):
        return True
    return any(a.startswith(first) and b.startswith(second) for first, second in OPPOSITES)
