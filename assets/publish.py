"""From a stage's outcome to what Dagster shows: counts, a preview, a plot. The only maker of metadata."""

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa

from assets.figures import key_figures
from assets.keys import asset_key
from assets.lineage import column_lineage, column_schema
from assets.sources import versions_of
from pipeline.ledger.table import cost_to_make
from pipeline.ledger.usage import Cost
from pipeline.markdown import markdown_table
from pipeline.report.page_file import page_path
from pipeline.stage import StageSpec, resolve
from pipeline.store.artifact import Artifact
from pipeline.store.store import Run

_PREVIEW_ROWS = 5


def publish(
    spec: StageSpec, artifact: Artifact, run: Run, cached: bool, is_known: bool = False, cost: Cost | None = None
) -> dg.MaterializeResult[Any]:
    """Return the materialization of a stage's artifact in a run; its data version is the digest of its content.

    Of one that ``is_known``, having been shown in full before, the event log gets no more than that it stands.
    ``cost`` is what was spent now, which the UI draws over time.
    """
    manifest = artifact.manifest
    metadata: dict[str, Any] = {
        "cached": cached,
        "dagster/row_count": manifest.rows[_main_table(artifact.tables)],
        "path": dg.MetadataValue.path(str(run.folder / manifest.name)),
        "fingerprint": manifest.fingerprint[:16],
    }
    if manifest.name == "evaluation":
        metadata["report"] = dg.MetadataValue.path(str(page_path(run)))
    if not is_known:
        metadata |= _details(spec, artifact, run.name)
        if manifest.name == spec.name:
            metadata["cost_to_make"] = cost_to_make(run.store, spec.name, manifest.fingerprint).model_dump()
    metadata |= {f"cost/{name}": value for name in Cost.model_fields if (value := getattr(cost, name, None))}
    seen = versions_of(spec, manifest.provenance).items()
    return dg.MaterializeResult(
        asset_key=asset_key(run.name, manifest.name),
        metadata=metadata,
        data_version=dg.DataVersion(manifest.digest),
        # Dagster's own tags, for want of a call (dagster#21436): it looks versions of inputs up when a step starts,
        # which for a source is what was observed last, if ever, and not what the stage has read.
        tags={f"dagster/input_data_version/{run.name}/{source}": version for source, version in seen},
    )


def _details(spec: StageSpec, artifact: Artifact, run: str) -> dict[str, Any]:
    manifest, main = artifact.manifest, _main_table(artifact.tables)
    details: dict[str, Any] = {
        "dagster/column_schema": column_schema(manifest.name, artifact.tables),
        "dagster/column_lineage": column_lineage(run, manifest.name, artifact.tables),
        "preview": _as_markdown(markdown_table(artifact.scan().head(_PREVIEW_ROWS).collect())),
    }
    details |= {f"rows/{table}": rows for table, rows in manifest.rows.items() if table != main}
    details |= {key: _note(value) for key, value in manifest.notes.items()}
    details |= {f"figure/{name}": value for name, value in key_figures(artifact).items()}
    draw = spec.plot if manifest.name == spec.name else spec.companions[manifest.name].plot
    if draw and (plot := resolve(draw)(artifact)):
        details["plot"] = dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(plot).decode()})")
    return details


def _main_table(tables: Mapping[str, pa.Schema]) -> str:
    return next(iter(tables))


def _note(value: Any) -> Any:
    if isinstance(value, str):
        return _as_markdown(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _as_markdown(markdown_table(pl.DataFrame(value)))
    return dg.MetadataValue.json(value) if isinstance(value, dict | list) else value


def _as_markdown(text: str) -> dg.MarkdownMetadataValue:
    """Return Markdown that links to nothing and loads no picture, whatever stands in its cells."""
    return dg.MetadataValue.md(text.replace("](", "]&#40;"))
