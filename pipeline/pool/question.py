"""From a source's values to a clean question with its content id, or the reason why not."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import RawPoolConfig
from pipeline.pool.source import Problem, Reason
from pipeline.prompts import LETTERS, render_question

# All but tab, line feed and carriage return; in real sources mostly LaTeX whose \b, \a or \v became one character.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Question:
    """A clean question."""

    id: str
    """Content hash, see ``content_id``."""
    text: str
    """Question, in NFC, outer white space removed."""
    options: list[str]
    """Answer options in order, cleaned likewise; empty for an open question."""
    domain: str
    """Domain as the source names it; empty when it does not."""
    prompt: str
    """User message: question, lettered options, instruction."""


def parse_question(values: Mapping[str, Any], config: RawPoolConfig) -> Question | Problem:
    """Clean one row's question; never looks at the answer column."""
    text = values.get(config.question_column)
    if not isinstance(text, str) or not text.strip():
        found = "is empty" if text is None or isinstance(text, str) else f"is a {type(text).__name__}, not a text"
        return Problem(Reason.MISSING_QUESTION, f"column {config.question_column!r} {found}")
    options = _parse_options(values.get(config.options_column)) if config.options_column else []
    if isinstance(options, Problem):
        return options
    text = clean_text(text)
    if problem := _text_problem([text, *options], config.max_question_chars):
        return problem
    instruction = config.instruction if options else config.open_instruction
    domain = values.get(config.domain_column) if config.domain_column else None
    return Question(
        id=content_id(text, options),
        text=text,
        options=options,
        domain="" if domain is None else clean_text(str(domain)).encode("utf-8", "backslashreplace").decode(),
        prompt=render_question(text, options, instruction),
    )


def content_id(text: str, options: Sequence[str]) -> str:
    """Return 16 hex digits of the SHA-256 of a question's content.

    Letter case, white space and the order of the options do not matter to it.
    """
    parts = [_fold(text), *sorted(map(_fold, options))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def clean_text(text: str) -> str:
    """Return ``text`` in NFC without outer white space."""
    return unicodedata.normalize("NFC", text).strip()


def is_plain(text: str) -> bool:
    """Return whether ``text`` can be stored and shown: no control characters, no lone surrogates."""
    return not _CONTROL.search(text) and not _SURROGATE.search(text)


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())


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
        if isinstance(option, bool) or not isinstance(option, str | int | float):
            return Problem(Reason.BAD_OPTIONS, f"option {number} is a {type(option).__name__}, not a text")
        options.append(clean_text(str(option)))
    if "" in options:
        return Problem(Reason.BAD_OPTIONS, f"option {options.index('') + 1} is blank")
    # Letter case tells options apart (c1ccccc1 and C1CCCCC1, genotypes Bb and bb); white space does not.
    if len({" ".join(option.split()) for option in options}) < len(options):
        return Problem(Reason.BAD_OPTIONS, "two options are the same")
    return options


def _text_problem(texts: Sequence[str], max_chars: int) -> Problem | None:
    n_chars = sum(map(len, texts))
    if n_chars > max_chars:
        return Problem(Reason.TOO_LONG, f"{n_chars:,} characters; raw_pool.max_question_chars is {max_chars:,}")
    for text in texts:
        if _SURROGATE.search(text):
            return Problem(Reason.INVALID_UTF8, "bytes that are not UTF-8, or half of a surrogate pair")
        if found := _CONTROL.search(text):
            return Problem(Reason.CONTROL_CHARACTERS, f"character U+{ord(found[0]):04X} in question or options")
    return None
