"""What a stage depends on, and when its last result still stands.

A stage's fingerprint is taken over its configuration, the content of its inputs, the model's weights, the code it runs
and the libraries below. Where the store holds a finished artifact of that fingerprint, nothing is computed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Final

from pipeline.artifacts import ArtifactStore, ArtifactWriter, Manifest
from pipeline.digests import digest_file, digest_json
from pipeline.model_config import ModelConfig
from pipeline.models import model_fingerprint
from pipeline.paths import PROJECT_ROOT
from pipeline.pool.source import Source
from pipeline.section import Section

INPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "raw_pool": (),
    "pool": ("raw_pool",),
    "rollouts": ("pool",),
    "pseudo_labels": ("rollouts",),
    "neuron_scores": ("rollouts",),
    "context_beliefs": ("pool", "rollouts", "pseudo_labels", "neuron_scores"),
    "curated_subset": ("pool", "pseudo_labels", "neuron_scores", "context_beliefs"),
    "teacher_contexts": ("pool", "rollouts", "pseudo_labels", "neuron_scores", "curated_subset"),
    "distilled_adapter": ("teacher_contexts",),
    "sft_adapter": ("rollouts", "pseudo_labels", "curated_subset"),
    "evaluation": ("raw_pool", "gold_labels", "pool", "rollouts", "pseudo_labels", "distilled_adapter", "sft_adapter"),
    "causal_check": ("rollouts", "neuron_scores"),
}
"""Artifacts that each stage reads; stages in the order in which they run."""
OPTIONAL: Final = ("causal_check",)
"""Stages that run only where they are asked for by name; nothing reads their artifacts."""

_CODE: Final[Mapping[str, tuple[str, ...]]] = {
    "raw_pool": ("pipeline/pool",),
    "pool": ("pipeline/deduplication", "pipeline/pool"),
    "rollouts": ("pipeline/rollouts",),
    "pseudo_labels": ("pipeline/rollouts",),
    "neuron_scores": ("pipeline/neurons",),
    "context_beliefs": ("pipeline/beliefs", "pipeline/teacher", "pipeline/retrieval", "pipeline/rollouts"),
    "curated_subset": ("pipeline/selection", "pipeline/retrieval"),
    "teacher_contexts": ("pipeline/teacher", "pipeline/retrieval"),
    "distilled_adapter": ("training", "training/objectives"),
    "sft_adapter": ("training", "training/objectives"),
    "evaluation": ("pipeline/evaluation", "pipeline/pool", "pipeline/rollouts"),
    "causal_check": ("pipeline/neurons",),
}
"""Folders whose code a stage runs, besides the shared files."""
_SHARED_FILES: Final = (
    "adapters",
    "artifacts",
    "batching",
    "chain",
    "correlation",
    "markdown",
    "models",
    "paths",
    "prompts",
    "registry",
    "schemas",
    "seeding",
)
_LIBRARIES: Final = (
    *("torch", "transformers", "tokenizers", "trl", "peft", "datasets"),
    *("numpy", "scipy", "polars", "pyarrow", "numba", "rensa", "bm25s", "sympy", "latex2sympy2_extended"),
)


@dataclass(frozen=True)
class Outcome:
    """What a stage left in the store."""

    manifest: Manifest
    """Of the stage's artifact."""
    cached: bool
    """Whether an earlier result still stood and nothing was computed."""


@dataclass(frozen=True)
class Stage:
    """One stage about to run: where, with what configuration, on which model."""

    name: str
    """Stage, asset and artifact."""
    store: ArtifactStore
    """Where inputs are read and the result goes."""
    section: Section
    """The stage's configuration."""
    model: ModelConfig | None = None
    """The language model, for stages that depend on it."""
    sources: Sequence[Source] = ()
    """Files and data sets outside the store that the stage reads."""
    resumable: bool = False
    """Whether the stage writes shards, of which a run that was cut off loses only the last."""

    def provenance(self) -> dict[str, object]:
        """Return everything that determines the result."""
        return {
            "config": self.section.model_dump(mode="json"),
            "inputs": {name: self.store.require(name).digest for name in INPUTS[self.name]},
            "sources": [[source.name, source.digest()] for source in self.sources],
            "model": model_fingerprint(self.model) if self.model else None,
            "code": _code_digest(self.name),
            "libraries": {name: version(name) for name in _LIBRARIES},
        }

    def fingerprint(self, provenance: Mapping[str, object]) -> str:
        """Return the digest of what determines the result: without settings that only bound memory or judge it."""
        config = self.section.model_dump(mode="json", exclude=set(self.section.immaterial))
        return digest_json({**provenance, "config": config})

    def run(self, compute: Callable[[ArtifactWriter], None]) -> Outcome:
        """Return the standing result, or compute and store a new one."""
        provenance = self.provenance()
        fingerprint = self.fingerprint(provenance)
        if standing := self.store.current(self.name, fingerprint):
            return Outcome(standing, cached=True)
        with self.store.write(self.name, fingerprint, provenance, self.resumable) as writer:
            writer.footer = {"fingerprint": fingerprint} if self.resumable else {}
            compute(writer)
        return Outcome(self.store.require(self.name), cached=False)


@cache
def _code_digest(stage: str) -> str:
    shared = [PROJECT_ROOT / "pipeline" / f"{name}.py" for name in _SHARED_FILES]
    files = [*shared, *(file for folder in _CODE[stage] for file in (PROJECT_ROOT / folder).glob("*.py"))]
    return digest_json({file.relative_to(PROJECT_ROOT).as_posix(): digest_file(file) for file in files})
