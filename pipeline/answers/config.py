"""Settings of the stage ``answers``."""

from pipeline.section import Section


class AnswersConfig(Section):
    """Reading of answers; it has no settings."""
