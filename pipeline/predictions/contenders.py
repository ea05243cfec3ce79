"""The models that evaluation compares: one list, from which predictions, tables, differences, plots and report follow.

A new contender is a stage that trains its adapter, and a line here. The order is that of the tables; the distilled
model is set against those before it, and those after it against the distilled model.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

UNTOUCHED, DISTILLED = "untouched", "distilled"
_MINUS: Final = " - "


@dataclass(frozen=True)
class Contender:
    """A model that evaluation compares with others."""

    name: str
    """Prefix of the stages that train it and ask it the tests."""
    label: str | None
    """What tables and plots call it; none for what its adapter's method is called, which one contender may be."""
    described: str
    """What it is, for people."""
    color: str
    """Colour in plots."""
    marker: str
    """Shape of its points in plots."""
    trained: bool = True
    """Whether it has an adapter."""

    @property
    def adapter(self) -> tuple[str, ...]:
        """The artifact of its adapter, if it has one."""
        return (f"{self.name}_adapter",) if self.trained else ()

    @property
    def predictions(self) -> str:
        """The artifact of its responses to the tests."""
        return f"{self.name}_predictions"


CONTENDERS: Final = (
    Contender("base", UNTOUCHED, "the untouched model", "#0072B2", "o", trained=False),
    Contender("rival", None, "the model trained by the rival method", "#009E73", "^"),
    Contender("distilled", DISTILLED, "the distilled model", "#D55E00", "s"),
    Contender("ceiling", "ceiling (gold)", "the model distilled from gold answers (a ceiling)", "#CC79A7", "D"),
)


def contender_of(label: str) -> Contender:
    """Return the contender that is called ``label``: the one without a label of its own if no other is."""
    own = {contender.label: contender for contender in CONTENDERS}
    return own.get(label) or own[None]


def in_order(labels: Iterable[str]) -> list[str]:
    """Return the labels once each, in the order of the list."""
    return sorted(set(labels), key=lambda label: (CONTENDERS.index(contender_of(label)), label))


def differences(labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return which of the labelled models are compared, by the name of their difference."""
    ordered = in_order(labels)
    if DISTILLED not in ordered:
        return {}
    place = ordered.index(DISTILLED)
    pairs = [(DISTILLED, other) for other in ordered[:place]] + [(one, DISTILLED) for one in ordered[place + 1 :]]
    return {_MINUS.join(pair): pair for pair in pairs}


def compared(name: str) -> tuple[str, str] | None:
    """Return the two models of a difference by its name; none for the name of a model."""
    one, minus, other = name.partition(_MINUS)
    return (one, other) if minus else None
