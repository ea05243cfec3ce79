"""Errors that a user can mend. Each message is one line: what is wrong, where, and the remedy."""


def one_line(error: object) -> str:
    """Return what an error of a library says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


class CurationError(Exception):
    """Base of every error that the pipeline raises on purpose."""


class ConfigError(CurationError):
    """A preset, override or value of the configuration is not usable."""


class CodeError(CurationError):
    """A module that a stage runs is missing or cannot be read."""


class SourceError(CurationError):
    """A source of questions is missing, empty, unreadable, or has more bad rows than allowed."""


class QuarantineError(SourceError):
    """More rows of a source are refused than allowed; the quarantine table says which and why."""


class ModelError(CurationError):
    """A model or tokenizer is missing or lacks what a stage needs."""


class UnsupportedModelError(ModelError):
    """The MLP structure of a model is not one whose neurons can be scored."""


class ArtifactError(CurationError):
    """A stored table is missing, damaged, or does not have the declared schema."""


class CheckError(CurationError):
    """A result does not pass a check that stops what would come after it."""


class TrainingError(CurationError):
    """A training job cannot run as configured."""
