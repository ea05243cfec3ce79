"""From a source's values to a clean question with its content id, or the reason why not."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from pipeline.pool.config import RawPoolConfig
from pipeline.pool.source import Problem, Reason, misnamed_options
from pipeline.prompts import LETTERS
from pipeline.seeding import derive_seed

# All but tab, line feed and carriage return; in real sources mostly LaTeX whose \b, \a or \v became one character.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Searched for from a capital on: words matched from their beginning would double the time of an ingestion.
_FROM_CAPITAL = re.compile(r"[A-Z](?<=[^\s\0].)[^\s\0]*")
_INNER_CAPITAL = re.compile(r"\W*\w.*[A-Z]", re.DOTALL)
MAX_SYMBOL_LETTERS = 3
"""A word of capitals is a symbol up to this length (MJ, AA, DNA), and shouting beyond it; own choice."""
_SIMPLE = bytes([0, *range(0x20, 0x7F)])
_TRUTH_OPTIONS = ({"yes", "no"}, {"true", "false"})
MAX_LABEL_CHARS = 1_000
"""Longest domain, level or task; longer ones are refused."""


class Question(NamedTuple):
    """A clean question; the columns of RAW_POOL but the last."""

    id: str
    """Content hash, see ``content_id``."""
    question: str
    """Question, in NFC, outer white space removed."""
    options: list[str]
    """Answer options in the source's order, cleaned likewise; empty for an open question."""
    kind: str
    """multiple_choice, true_or_false (the options are yes and no, or true and false), or open."""
    domain: str
    """Domain as the source names it; empty when it does not."""
    level: str
    """Level likewise."""
    task: str
    """Task likewise."""
    permutation: Sequence[int]
    """Index of the option behind each letter; empty for an open question."""


def parse_question(values: Mapping[str, Any], config: RawPoolConfig) -> Question | Problem:
    """Clean one row's question; never looks at the answer column."""
    text = values.get(config.question_column)
    if not isinstance(text, str) or not text.strip():
        found = "is empty" if text is None or isinstance(text, str) else f"is a {type(text).__name__}, not a text"
        return Problem(Reason.MISSING_QUESTION, f"column {config.question_column!r} {found}")
    if misnamed := misnamed_options(values.keys(), config):
        detail = (
            f"the row has {misnamed!r} but no {config.options_column!r}, which raw_pool.options_column names: rename it"
        )
        return Problem(Reason.BAD_OPTIONS, detail)
    options = _parse_options(values.get(config.options_column)) if config.options_column else []
    if isinstance(options, Problem):
        return options
    text = clean_text(text)
    if problem := _text_problem(text, options, config.max_question_chars):
        return problem
    domain = _label(values, config.domain_column)
    level = _label(values, config.level_column)
    task = _label(values, config.task_column)
    if max(len(domain), len(level), len(task)) > MAX_LABEL_CHARS:
        return Problem(Reason.TOO_LONG, f"domain, level or task of more than {MAX_LABEL_CHARS:,} characters")
    stem, *folded = _fold([text, *options])
    if len(set(folded)) < len(folded) and _repeats(options):
        return Problem(Reason.BAD_OPTIONS, "two options are the same")
    content = _digest(stem, folded)
    order = _permutation(content, len(options), config)
    return Question(content, text, options, _kind(folded), domain, level, task, order)


def content_id(text: str, options: Sequence[str]) -> str:
    """Return 16 hex digits of the SHA-256 of a question's content.

    White space and the order of the options do not matter to it, nor does letter case where it carries no meaning:
    words with a capital after their first character keep it if they hold a digit or at most ``MAX_SYMBOL_LETTERS``
    letters, as C1CCCCC1 (not c1ccccc1), MJ (not mJ) and AA (not Aa) do, unless a text of several words is all capitals.
    """
    stem, *folded = _fold([clean_text(part) for part in (text, *options)])
    return _digest(stem, folded)


def clean_text(text: str) -> str:
    """Return ``text`` in NFC without outer white space."""
    return unicodedata.normalize("NFC", text).strip()


def is_storable(text: str) -> bool:
    """Return whether ``text`` can be stored and shown: no control characters, no lone surrogates."""
    return not (_CONTROL.search(text) or _SURROGATE.search(text))


def _is_simple(text: str) -> bool:
    """Return whether ``text`` is printable ASCII and NUL only: the quick way for most texts."""
    return text.isascii() and not text.encode().translate(None, delete=_SIMPLE)


def _fold(texts: Sequence[str]) -> list[str]:
    """Return clean texts without difference of white space, and of letter case unless it carries meaning."""
    spoken = [text.casefold() if text.isupper() and len(text.split()) > 1 else text for text in texts]
    joined = _fold_case("\0".join(spoken))
    if "  " not in joined and _is_simple(joined):
        return joined.split("\0")  # nothing to normalise, and most texts are so
    return " ".join(unicodedata.normalize("NFC", joined).split()).split("\0")


def _fold_case(text: str) -> str:
    parts, end = [], 0
    for found in _FROM_CAPITAL.finditer(text):
        start = found.start()
        while start > end and text[start - 1] != "\0" and not text[start - 1].isspace():
            start -= 1
        if _is_symbol(word := text[start : found.end()]):
            parts += [text[end:start].casefold(), word]
            end = found.end()
    return "".join([*parts, text[end:].casefold()])


def _is_symbol(word: str) -> bool:
    brief = sum(map(str.isalpha, word)) <= MAX_SYMBOL_LETTERS or any(map(str.isdigit, word))
    return brief and _INNER_CAPITAL.match(word) is not None


def _digest(text: str, options: Sequence[str]) -> str:
    return hashlib.sha256("\0".join([text, *sorted(options)]).encode()).hexdigest()[:16]


def _permutation(content: str, n_options: int, config: RawPoolConfig) -> Sequence[int]:
    # Seeded by the content, so that neither row order nor other rows change it.
    order = range(n_options)
    return Random(derive_seed(config.seed, content)).sample(order, n_options) if config.permute_options else order


def _kind(folded: Sequence[str]) -> str:
    if not folded:
        return "open"
    is_truth = len(folded) == 2 and {option.casefold() for option in folded} in _TRUTH_OPTIONS  # YES is a symbol
    return "true_or_false" if is_truth else "multiple_choice"


def _label(values: Mapping[str, Any], column: str | None) -> str:
    value = values.get(column) if column is not None else None
    if value is None:
        return ""
    text = clean_text(str(value))
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _parse_options(value: object) -> list[str] | Problem:
    if value is None:
        return []
    if not isinstance(value, list):
        return Problem(Reason.BAD_OPTIONS, f"the options are a {type(value).__name__}, not a list")
    if len(value) == 1:
        return Problem(Reason.TOO_FEW_OPTIONS, "one option only; an open question has none")
    if len(value) > len(LETTERS):
        return Problem(Reason.TOO_MANY_OPTIONS, f"{len(value)} options; at most {len(LETTERS)} have letters")
    options = []
    for number, option in enumerate(value, start=1):
        if type(option) not in (str, int, float):  # bool is an int
            return Problem(Reason.BAD_OPTIONS, f"option {number} is a {type(option).__name__}, not a text")
        options.append(clean_text(str(option)))
    if "" in options:
        return Problem(Reason.BAD_OPTIONS, f"option {options.index('') + 1} is blank")
    return options


def _repeats(options: Sequence[str]) -> bool:
    # Letter case tells options apart (c1ccccc1 and C1CCCCC1, genotypes Bb and bb); white space does not.
    return len({" ".join(option.split()) for option in options}) < len(options)


def _text_problem(text: str, options: Sequence[str], max_chars: int) -> Problem | None:
    whole = "".join([text, *options])
    if len(whole) > max_chars:
        return Problem(Reason.TOO_LONG, f"{len(whole):,} characters; raw_pool.max_question_chars is {max_chars:,}")
    if _is_simple(whole) and "\0" not in whole:
        return None
    if _SURROGATE.search(whole):
        return Problem(Reason.INVALID_UTF8, "bytes that are not UTF-8, or half of a surrogate pair")
    if found := _CONTROL.search(whole):
        return Problem(Reason.CONTROL_CHARACTERS, f"character U+{ord(found[0]):04X} in question or options")
    return None
