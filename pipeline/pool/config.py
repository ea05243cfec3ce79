"""Settings of this room's stage."""

from typing import Literal

from pydantic import Field

from pipeline.section import Section


class Layout(Section):
    """Where questions stand and how they are read."""

    path: str = "data/reference/pool.jsonl"
    """File, folder or pattern (data/**/*.jsonl.gz) of questions, a URL of either that fsspec knows (https, s3, ...; of
    files on the hub hf://datasets/<owner>/<name>@<revision>/<pattern>), or a data set: hf://datasets/<owner>/<name>."""
    format: Literal["auto", "jsonl", "csv", "parquet", "sciknoweval", "mmlu_pro", "huggingface"] = "auto"
    """Source layout; auto goes by each file name's ending, and knows SciKnowEval and MMLU-Pro by their columns.
    huggingface: path is a hub id or a folder of a data set."""
    subset: str | None = None
    """Name of the data set's configuration, for huggingface; none takes its only or default one."""
    split: str = "train"
    """Split of the data set, for huggingface."""
    revision: str | None = None
    """Branch, tag or commit of the data set on the hub; none takes the default branch."""
    question_column: str = "question"
    """Column of the question's text."""
    options_column: str | None = "options"
    """Column of the answer options (a list, or a JSON list in CSV); none reads all questions as open."""
    domain_column: str | None = "domain"
    """Column of the domain; none, or a source without it, leaves the domain empty."""
    level_column: str | None = "level"
    """Column of the level, such as L1 to L5 of SciKnowEval; likewise."""
    task_column: str | None = "task"
    """Column of the task; likewise."""
    permute_options: bool = False
    """Show the options in an order drawn per question, against bias for positions; off keeps the source's."""
    seed: int = 0
    """Seed of the order of the options, combined with the question id."""
    max_question_chars: int = Field(default=20_000, ge=1)
    """Longer questions, options included, are quarantined (characters)."""
    max_quarantined_share: float = Field(default=0.05, ge=0, le=1)
    """The stage fails when a larger share of the rows is refused."""


class AnsweredLayout(Layout):
    """The same where there are answers."""

    answer_column: str | None = "answer"
    """Column of the gold answer (letter, index or text); only ever stored in the gold table. None: no gold."""


class RawPoolConfig(AnsweredLayout):
    """Where the unlabelled questions come from and which rows are refused."""

    further_paths: list[str] = []
    """More files of the same layout, each as ``path`` may be, such as the pool.jsonl of ``proposed_questions``."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most so many rows; none reads all."""
