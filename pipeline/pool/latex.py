r"""LaTeX that a writer of JSON or Python mangled: ``\beta`` with one backslash is read as a backspace and ``eta``.

Put back where it is certain: the character is one that has a letter of its own after a backslash, and what follows
begins a command of that letter and no word. A line break before ``u`` may be a line break, so ``\nu`` is not put back;
what is left of control characters is refused as before. Found in MMLU-Pro as published (``\beta``, ``\bullet``,
``\alpha``, ``\texttheta``).
"""

import re
from collections.abc import Mapping
from typing import Any, Final

_REST: Final[Mapping[str, str]] = {
    "\a": r"lpha|ngle|pprox|st\b",
    "\v": r"ert|ec\b|arphi|dots",
    "\b": "eta|ullet|ar|egin|inom|oldsymbol|ig|ecause|ot|mod|ackslash|f",
    "\f": "rac|orall|box|lat|loor|rown|oot",
    "\t": r"heta|imes|ilde|riangle|ext\{|ext(?:theta|phi|alpha|beta|it|bf|rm|sc|tt|degree|asteriskcentered)\b",
    "\r": r"ight(?:arrow|leftharpoons)?\b",
    "\n": r"abla\b",
}
"""What may follow each character, as a pattern, by the character: the rest of commands that begin with its letter."""
_LETTER: Final = {"\a": "a", "\v": "v", "\b": "b", "\f": "f", "\t": "t", "\r": "r", "\n": "n"}
_MANGLED: Final = re.compile("|".join(f"{re.escape(char)}(?={rest})" for char, rest in _REST.items()))


def mend_latex(value: Any) -> Any:
    """Return a value of a row, texts within lists and mappings included, with mangled commands put back.

    The same object where there is nothing to mend.
    """
    if isinstance(value, str):
        return _MANGLED.sub(lambda found: "\\" + _LETTER[found[0]], value) if _MANGLED.search(value) else value
    if isinstance(value, list):
        mended = [mend_latex(item) for item in value]
        return mended if any(new is not old for new, old in zip(mended, value, strict=True)) else value
    if isinstance(value, dict):
        fields = {key: mend_latex(item) for key, item in value.items()}
        return fields if any(fields[key] is not value[key] for key in fields) else value
    return value
