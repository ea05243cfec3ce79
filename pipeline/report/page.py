"""From blocks to one HTML file that needs nothing else: no network, no other file.

Questions are hostile text. Templates escape all that they are given, data in scripts is escaped for HTML besides
(``jinja2.utils.htmlsafe_json_dumps``), and a content security policy lets the browser run the page's own two scripts,
by their digests, and load nothing. Characters that steer a terminal or turn the direction of text are made visible.
"""

import base64
import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markdown_it import MarkdownIt
from markupsafe import Markup

from pipeline.report.blocks import Block, Explorer, Fold, Page, Plot, Plots

_PICTURES: Final = 0x2400
"""Where Unicode has pictures of control characters, in their order."""
_TURNING: Final = frozenset({"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"})
"""Classes of characters that change the direction of what follows (Unicode annex 9)."""


def render(page: Page) -> str:
    """Return a page as HTML; the same page gives the same bytes."""
    blocks = list(_flat([*page.summary, *(block for section in page.sections for block in section.blocks)]))
    data = {
        "plots": {block.name: block.spec for block in blocks if isinstance(block, Plot)},
        "explorers": {block.name: block.data() for block in blocks if isinstance(block, Explorer)},
    }
    scripts = [_plot_library(), _own("report.js")]
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            data=htmlsafe_json_dumps(_visible_tree(data), dumps=_dump),
            scripts=[Markup(script) for script in scripts],  # noqa: S704  the project's own, and the plot library's
            hashes=[_hash(script) for script in scripts],
            style=Markup(_own("report.css")),  # noqa: S704  the project's own
        )
    )


def visible(text: str) -> str:
    """Return text with control characters and those that turn its direction as something to see."""
    return text if text.isascii() and text.isprintable() else "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if character in "\n\t":
        return character
    code = ord(character)
    if code < 0x20:
        return chr(_PICTURES + code)
    unseen = unicodedata.category(character) == "Cc" or unicodedata.bidirectional(character) in _TURNING
    return f"⟨U+{code:04X}⟩" if unseen else character


def _visible_tree(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {name: _visible_tree(each) for name, each in value.items()}
    return [_visible_tree(each) for each in value] if isinstance(value, Sequence) else value


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _markdown(text: str) -> Markup:
    """Return the project's own words as HTML; no markup passes, and nothing is fetched."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])
    return Markup(parser.render(visible(text)))  # noqa: S704  escaped by the parser


def _dump(value: Any, **_options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _flat(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        yield from _flat(block.blocks if isinstance(block, Fold) else block.plots if isinstance(block, Plots) else ())


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _plot_library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed (BSD-3-Clause) as one script."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return f"(()=>{{{bundle}\n}})();"


def _own(name: str) -> str:
    return (files("pipeline.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = _markdown
    return environment
