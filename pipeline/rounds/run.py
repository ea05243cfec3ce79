"""Making rounds: each is an ordinary run of the chain, with the model of the last round that was promoted.

Round ``n`` of ``<name>`` is the run ``<name>-<n>``. Its model is asked the pool in the run ``<name>-<n>-after``, which
the drift gate compares with the round's own answers; a next round that begins with this model finds them there and
samples new and changed questions only. Seeds of what is chosen and trained change from round to round, so that a round
that was refused is not repeated; those of sampling do not, so that models are compared on the same draws and nothing is
sampled twice. What was judged stands, whatever changes later: a new name judges again.
"""

import logging
from typing import Final

from pipeline.chain import Means, materialize, run_chain
from pipeline.config import Config
from pipeline.digests import digest_json
from pipeline.errors import ArtifactError, CheckError, ModelError
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.rounds.drift import judge, measure_drift, measure_gold
from pipeline.rounds.merge import MODEL_FOLDER
from pipeline.rounds.record import judged_round, last_promoted, read_rounds, run_after, run_of
from pipeline.rounds.survey import LAST_STAGE
from pipeline.stages import stage_of
from pipeline.store.store import Run

MERGED: Final = "merged_model"
_DRAWN_ANEW: Final = ("curated_subset", "distilled_adapter", "rival_adapter", "ceiling_adapter")
"""Sections whose seed changes from round to round."""
_logger = logging.getLogger(__name__)


def run_rounds(config: Config, rounds: Run, n_rounds: int, means: Means | None = None) -> None:
    """Make the rounds of a name up to number ``n_rounds``; those that were judged stand.

    Raises what a stage raises, and ArtifactError where the model of a round is gone; the rounds before stand.
    """
    for number in range(read_rounds(rounds).height + 1, n_rounds + 1):
        _make_round(config, rounds, number, means)


def settings_of(config: Config) -> str:
    """Return a digest of the settings that determine a round, the model left out."""
    return digest_json({name: section.material() for name, section in config if name != "model"})[:16]


def _make_round(config: Config, rounds: Run, number: int, means: Means | None) -> None:
    base = last_promoted(read_rounds(rounds))
    model = _model_of(run_of(rounds, base), config.model) if base else config.model
    own, run, after = _drawn_anew(config, number, model), run_of(rounds, number), run_after(rounds, number)
    _logger.info("round %d begins with %s", number, f"the model of round {base}" if base else model.path)
    run_chain(own, run, means=means)
    materialize(stage_of(MERGED), own.rounds, own.model, run, means)
    made = _model_of(run, config.model)
    try:
        run_chain(own.model_copy(update={"model": made}), after, last=LAST_STAGE, means=means)
        drift = measure_drift(run, after, config) + measure_gold(run, run_of(rounds, 1), config)
        promoted, verdict = judge(drift, config)
    except (CheckError, ModelError) as error:  # of a model that cannot even be asked
        drift, promoted, verdict = [], False, f"refused: its answers to the pool cannot be judged: {error}"
    echo = run.require("teacher_contexts").manifest.notes
    row = {
        "round": number,
        "base": base,
        "promoted": promoted,
        "verdict": verdict,
        "questions": run.require("pool").manifest.rows["pool"],
        **{name: echo.get(name) for name in ("answer_echo", "answer_echo_by_chance")},
        "settings": settings_of(config),
        "base_model": run.require(MERGED).manifest.provenance["model"],
        "model": model_fingerprint(made),
    }
    if promoted:
        rounds.show(MERGED, run.require(MERGED).manifest.fingerprint)
    judged_round(rounds, row, drift)
    _logger.log(logging.INFO if promoted else logging.WARNING, "round %d %s", number, verdict)


def _drawn_anew(config: Config, number: int, model: ModelConfig) -> Config:
    """Return the settings of a round: its model, and other draws than those of other rounds."""
    sections = {name: getattr(config, name) for name in _DRAWN_ANEW}
    drawn = {name: own.model_copy(update={"seed": own.seed + number - 1}) for name, own in sections.items()}
    return config.model_copy(update={"model": model, **drawn})


def _model_of(run: Run, first: ModelConfig) -> ModelConfig:
    merged = run.require(MERGED)
    if not merged.is_intact():
        raise ArtifactError(f"'{MERGED}' of run '{run.name}' is damaged: materialize '{MERGED}' again")
    return first.model_copy(update={"path": str(merged.folder / MODEL_FOLDER), "revision": None})
