"""What lies outside the store, as observable assets: their versions are digests of what is there now.

So the marks of what is stale are true after a file or the model was replaced: observe the sources, by hand or on the
schedule, and the stages that read them show it.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import dagster as dg

from assets.keys import asset_key
from pipeline.config import Config
from pipeline.digests import digest_json
from pipeline.errors import CurationError
from pipeline.model_fingerprint import model_fingerprint
from pipeline.stage import StageSpec, read_sources
from pipeline.stages import stage_of

GROUP: Final = "sources"
"""Group of the source assets."""
MODEL: Final = "base_model"
"""Source asset of the language model."""


def sources_of(spec: StageSpec) -> list[str]:
    """Return the names of the source assets that a stage reads."""
    return [_files(spec)] * (spec.sources is not None) + [MODEL] * spec.uses_model


def versions_of(spec: StageSpec, provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of the sources that a result of a stage was made from."""
    found = {_files(spec): digest_json(provenance["sources"]), MODEL: str(provenance["model"])}
    return {name: found[name][:32] for name in sources_of(spec)}


def build_sources(specs: Sequence[StageSpec], config: Config, run: str) -> list[dg.SourceAsset]:
    """Return the source assets of a run; what they observe is what ``config`` names."""
    files = [
        _observable(
            run, _files(spec), f"Files that the stage {spec.name} reads.", partial(_observe_files, spec, config)
        )
        for spec in specs
        if spec.sources is not None
    ]
    described = "Weights and settings of the language model."
    return [*files, _observable(run, MODEL, described, partial(model_fingerprint, config.model))]


def _observable(run: str, name: str, description: str, observe: Callable[[], str]) -> dg.SourceAsset:
    def version() -> dg.DataVersion:
        try:
            return dg.DataVersion(observe()[:32])
        except CurationError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # 1.13 still calls observable assets beta
        declare = dg.observable_source_asset(key=asset_key(run, name), group_name=GROUP, description=description)
        return declare(version)


def _observe_files(spec: StageSpec, config: Config) -> str:
    before = {stage: getattr(config, stage_of(stage).key).model_dump(mode="json") for stage in spec.reads}
    return digest_json(read_sources(spec, getattr(config, spec.key), before))


def _files(spec: StageSpec) -> str:
    return f"{spec.name}_sources"
