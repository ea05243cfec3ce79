"""Settings of this room's stage."""

from pydantic import Field

from pipeline.held_out.config import SplitOff
from pipeline.section import Section


class Comparison(Section):
    """When questions are alike."""

    near_duplicate_threshold: float = Field(default=0.65, gt=0, le=1)
    """Jaccard index, n-grams weighted by rarity, that both stems and options of near-duplicates reach."""
    ngram_size: int = Field(default=2, ge=1)
    """Longest word n-gram compared."""
    n_permutations: int = Field(default=128, ge=16)
    """Length of a MinHash signature."""
    contamination_threshold: float = Field(default=0.6, gt=0, le=1)
    """Share of an evaluation question, n-grams weighted by rarity, whose presence in a pool question is a hit."""


class PoolConfig(SplitOff, Comparison):
    """Near-duplicates, contamination, and tests split off the pool."""

    drop_near_duplicates: bool = True
    """Keep one question of each group of near-duplicates; otherwise they are named only."""
    decontaminate_against: list[str] = []
    """Paths of evaluation questions that must not stand in the pool: files, folders, patterns, or a split of a data set
    (<folder>#<split>, hf://datasets/<owner>/<name>#<split>); files of any layout that format=auto reads."""
    split_seed: int = 0
    """Seed of the in-domain test; apart from the seeds of a run, so that runs are compared on the same questions."""
