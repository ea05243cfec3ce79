"""The asset graph: one thin asset per stage, in the order in which data flows."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from assets.publish import publish
from assets.resources import StoreResource
from assets.run_config import read_section, run_config
from pipeline import chain
from pipeline.adapters.config import TrainingConfig
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config
from pipeline.errors import QuarantineError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.model_config import ModelConfig
from pipeline.pool.config import RawPoolConfig
from pipeline.section import Section, parse_section
from pipeline.stage import INPUTS, Outcome

_DESCRIPTIONS = {
    "raw_pool": "Unlabelled questions, normalised to one record.",
    "gold_labels": "Gold answers where the source has them; only evaluation reads them.",
    "quarantine": "Refused rows with reasons.",
    "pool": "Questions without near-duplicates, contamination and held-out tests; what was dropped, and why.",
    "rollouts": "Sampled responses to every question, with extracted answers.",
    "pseudo_labels": "Majority votes over the rollouts.",
    "neuron_scores": "MLP neurons that carry each rollout, with their contributions.",
    "context_beliefs": "Answers with the teacher's context against those without. Empty unless samples are asked for.",
    "curated_subset": "Which questions become training questions, and why.",
    "teacher_contexts": "Worked examples that the teacher sees before each training question.",
    "distilled_adapter": "LoRA adapter from on-policy self-distillation.",
    "sft_adapter": "LoRA adapter fine-tuned on the majority's responses to the same questions, to compare with.",
    "evaluation": "Untouched, fine-tuned and distilled model on held-out questions.",
    "causal_check": "What silencing each response's leading neurons costs it, against random neurons. Optional.",
}
_QUARANTINE = dg.AssetKey("quarantine")
_REFUSED_SHARE = dg.AssetCheckSpec(
    "refused_share",
    asset="raw_pool",
    blocking=True,
    description="Fails, and nothing downstream runs, when no row is left, a file is damaged, or more rows are refused "
    "than raw_pool.max_quarantined_share allows.",
)
_PROCESS_POOL = "model"
"""Stages that load the model run one at a time when the instance limits this pool, as a single GPU needs."""


def build_assets(config: Config) -> list[dg.AssetsDefinition]:
    """Return the assets, their launchpad defaults taken from ``config``."""
    return [
        _raw_pool(config.raw_pool),
        _table_asset("pool", config.pool, chain.pool),
        _model_asset("rollouts", config.rollouts, chain.rollouts),
        _table_asset("pseudo_labels", config.pseudo_labels, chain.pseudo_labels),
        _model_asset("neuron_scores", config.neuron_scores, chain.neuron_scores),
        _model_asset("context_beliefs", config.context_beliefs, chain.context_beliefs),
        _table_asset("curated_subset", config.curated_subset, chain.curated_subset),
        _model_asset("teacher_contexts", config.teacher_contexts, chain.teacher_contexts),
        _adapter("distilled_adapter", config.distilled_adapter, chain.distillation_job, config.evaluation),
        _adapter("sft_adapter", config.sft_adapter, chain.sft_job, config.evaluation),
        _model_asset("evaluation", config.evaluation, chain.evaluation),
        _model_asset("causal_check", config.causal_check, chain.causal_check),
    ]


def _raw_pool(section: RawPoolConfig) -> dg.AssetsDefinition:
    names = ("raw_pool", "gold_labels", "quarantine")
    specs = [
        dg.AssetSpec(name, group_name="curation", description=_DESCRIPTIONS[name], skippable=True) for name in names
    ]

    Form = run_config(section)

    @dg.multi_asset(name="raw_pool", specs=specs, check_specs=[_REFUSED_SHARE], can_subset=True)
    def ingest(
        context: dg.AssetExecutionContext,
        config: Form,  # type: ignore[valid-type]  # a class made at run time
        store: StoreResource,
    ) -> Iterator[Any]:
        folder, settings, refusal = store.open(), read_section(RawPoolConfig, config), None
        try:
            outcome = chain.raw_pool(folder, settings)
            stored = {dg.AssetKey(name) for name in names}
        except QuarantineError as error:  # the quarantine stands, and is shown before the run fails
            refusal, outcome, stored = error, Outcome(folder.require("quarantine"), cached=False), {_QUARANTINE}
        _log(context, outcome)
        for key in sorted(stored & context.selected_asset_keys):
            yield publish(folder, key.to_user_string(), outcome)
        if context.selected_asset_check_keys:
            figures = {key: folder.require("quarantine").notes[key] for key in ("read", "kept", "refused_share")}
            allowed = {"max_quarantined_share": settings.max_quarantined_share}
            yield dg.AssetCheckResult(
                passed=refusal is None, description=str(refusal or ""), metadata=figures | allowed
            )
        if refusal:
            raise refusal

    return ingest


def _table_asset(name: str, section: Section, stage: Callable[[ArtifactStore, Any], Outcome]) -> dg.AssetsDefinition:
    Form = run_config(section)

    @dg.asset(name=name, deps=INPUTS[name], group_name="curation", description=_DESCRIPTIONS[name])
    def run(
        context: dg.AssetExecutionContext,
        config: Form,  # type: ignore[valid-type]  # a class made at run time
        store: StoreResource,
    ) -> Any:
        folder = store.open()
        outcome = stage(folder, read_section(type(section), config))
        _log(context, outcome)
        return publish(folder, name, outcome)

    return run


def _model_asset(
    name: str, section: Section, stage: Callable[[ArtifactStore, ModelConfig, Any], Outcome]
) -> dg.AssetsDefinition:
    group = "evaluation" if name in ("evaluation", "causal_check") else "curation"

    Form = run_config(section)

    @dg.asset(name=name, deps=INPUTS[name], group_name=group, description=_DESCRIPTIONS[name], pool=_PROCESS_POOL)
    def run(
        context: dg.AssetExecutionContext,
        config: Form,  # type: ignore[valid-type]  # a class made at run time
        store: StoreResource,
        model: dg.ResourceParam[Any],
    ) -> Any:
        folder = store.open()
        outcome = stage(folder, read_section(ModelConfig, model), read_section(type(section), config))
        _log(context, outcome)
        return publish(folder, name, outcome)

    return run


def _adapter(
    name: str,
    section: TrainingConfig,
    stage: Callable[[ArtifactStore, ModelConfig, Any], Outcome | list[str]],
    evaluation: EvaluationConfig,
) -> dg.AssetsDefinition:
    Form = run_config(section)

    @dg.asset(name=name, deps=INPUTS[name], group_name="training", description=_DESCRIPTIONS[name], pool=_PROCESS_POOL)
    def run(
        context: dg.AssetExecutionContext,
        config: Form,  # type: ignore[valid-type]  # a class made at run time
        store: StoreResource,
        model: dg.ResourceParam[Any],
        pipes: dg.PipesSubprocessClient,
    ) -> Any:
        folder = store.open()
        settings = read_section(type(section), config)
        if tests := _evaluation_to_come(context, evaluation):
            chain.check_tests(folder, tests)
        job = stage(folder, read_section(ModelConfig, model), settings)
        if not isinstance(job, Outcome):
            pipes.run(context=context, command=job)
            job = Outcome(folder.require(name), cached=False)
        _log(context, job)
        return publish(folder, name, job)

    return run


def _evaluation_to_come(context: dg.AssetExecutionContext, preset: EvaluationConfig) -> EvaluationConfig | None:
    """Return the settings of the evaluation that follows in the same run, if one does."""
    name, selection = "evaluation", context.run.asset_selection
    if selection is not None and dg.AssetKey(name) not in selection:
        return None
    operations: Any = context.run.run_config.get("ops", {})
    given = operations.get(name, {}).get("config", {})
    return parse_section(EvaluationConfig, preset.model_dump() | given, where=f"run config of {name}")


def _log(context: dg.AssetExecutionContext, outcome: Outcome) -> None:
    manifest = outcome.manifest
    verdict = "unchanged, nothing recomputed" if outcome.cached else "computed"
    context.log.info(f"{manifest.name}: {verdict}; rows {manifest.rows}; fingerprint {manifest.fingerprint[:16]}")
