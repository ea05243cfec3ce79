"""From a stage's outcome to what Dagster shows: counts, schema, a preview, a plot. The only maker of metadata."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa

from pipeline.artifacts import ArtifactStore
from pipeline.deduplication.statistics import plot_pool
from pipeline.markdown import markdown_table
from pipeline.plots import bars, histogram, scatter, support_profile
from pipeline.schemas import ARTIFACTS
from pipeline.stage import Outcome

_PREVIEW_ROWS = 5


def publish(store: ArtifactStore, name: str, outcome: Outcome) -> dg.MaterializeResult[Any]:
    """Return the materialization of an artifact; its data version is the digest of its content."""
    manifest = store.require(name)
    table = next(iter(ARTIFACTS[name]))
    metadata: dict[str, Any] = {
        "cached": outcome.cached,
        "dagster/row_count": manifest.rows[table],
        "dagster/column_schema": _column_schema(ARTIFACTS[name][table]),
        "path": dg.MetadataValue.path(str(store.path(name))),
        "fingerprint": manifest.fingerprint[:16],
        "preview": dg.MetadataValue.md(markdown_table(store.scan(name).head(_PREVIEW_ROWS).collect())),
    }
    metadata |= {f"rows/{other}": rows for other, rows in manifest.rows.items() if other != table}
    metadata |= {key: _note(value) for key, value in manifest.notes.items()}
    if (draw := _PLOTS.get(name)) and (plot := draw(store)):
        metadata["plot"] = dg.MetadataValue.md(_image(plot))
    return dg.MaterializeResult(asset_key=name, metadata=metadata, data_version=dg.DataVersion(manifest.digest))


def _column_schema(fields: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=str(field.type),
                description=(field.metadata or {}).get(b"note", b"").decode(),
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in fields
        ]
    )


def _note(value: Any) -> Any:
    if isinstance(value, str):
        return dg.MetadataValue.md(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return dg.MetadataValue.md(markdown_table(pl.DataFrame(value)))
    return dg.MetadataValue.json(value) if isinstance(value, dict | list) else value


def _image(png: bytes) -> str:
    return f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})"


def _column_plot(name: str, table: str, column: str, label: str) -> Callable[[ArtifactStore], bytes]:
    def draw(store: ArtifactStore) -> bytes:
        return histogram(store.scan(name, table).select(column).collect()[column].drop_nulls(), name, label)

    return draw


def _file_plot(name: str, file: str) -> Callable[[ArtifactStore], bytes | None]:
    def load(store: ArtifactStore) -> bytes | None:
        path = store.root / name / file
        return path.read_bytes() if path.exists() else None  # an adapter that was not wanted has no curve

    return load


def _response_lengths(store: ArtifactStore) -> bytes:
    lengths = store.scan("rollouts").select(pl.col("response_ids").list.len()).collect()["response_ids"]
    return histogram(lengths, "rollouts", "response tokens")


def _question_lengths(store: ArtifactStore) -> bytes:
    lengths = store.scan("raw_pool").select(pl.col("question").str.len_chars()).collect()["question"]
    return histogram(lengths, "raw_pool", "characters of the question")


def _refusal_reasons(store: ArtifactStore) -> bytes:
    counts = store.scan("quarantine").group_by("reason").len().sort("len", "reason").collect()
    return bars(counts["reason"].to_list(), counts["len"], "quarantine", "refused rows")


def _neuron_support(store: ArtifactStore) -> bytes:
    sizes = store.scan("neuron_scores", "neuron_sizes").filter(pl.col("score_sum") > 0)
    shares = sizes.select(
        layer=pl.int_ranges(pl.col("layer_scores").list.len()), share=pl.col("layer_scores") / pl.col("score_sum")
    ).explode("layer", "share", empty_as_null=False)
    profile = shares.group_by("layer").agg(pl.col("share").mean()).sort("layer")
    return support_profile(sizes.select("n_neurons").collect()["n_neurons"], profile.collect()["share"])


def _drops(store: ArtifactStore) -> bytes:
    drops = store.read("causal_check")
    axes = ("drop with random neurons silenced (nats)", "drop with leading neurons silenced (nats)")
    return scatter(drops["drop_random"], drops["drop_silenced"], "causal_check", *axes)


def _pool(store: ArtifactStore) -> bytes:
    return plot_pool(store.read("pool"), store.read("pool", "dropped"))


_PLOTS: Mapping[str, Callable[[ArtifactStore], bytes | None]] = {
    "raw_pool": _question_lengths,
    "quarantine": _refusal_reasons,
    "pool": _pool,
    "rollouts": _response_lengths,
    "pseudo_labels": _column_plot("pseudo_labels", "pseudo_labels", "vote_share", "vote share of the leading answer"),
    "neuron_scores": _neuron_support,
    "context_beliefs": _column_plot("context_beliefs", "context_beliefs", "belief_shift", "belief shift, JSD (nats)"),
    "curated_subset": _column_plot("curated_subset", "curated_subset", "score", "selection score"),
    "teacher_contexts": _column_plot("teacher_contexts", "teacher_contexts", "n_teacher_tokens", "teacher tokens"),
    "distilled_adapter": _file_plot("distilled_adapter", "training_curve.png"),
    "sft_adapter": _file_plot("sft_adapter", "training_curve.png"),
    "evaluation": _file_plot("evaluation", "reliability.png"),
    "causal_check": _drops,
}
