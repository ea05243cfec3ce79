"""What must hold before an adapter is distilled."""

import logging
from collections.abc import Mapping
from typing import Any

from pipeline.adapters.config import DistilledAdapterConfig
from pipeline.errors import TrainingError

_logger = logging.getLogger(__name__)


def require_lift(notes: Mapping[str, Mapping[str, Any]], section: DistilledAdapterConfig) -> None:
    """Warn, or raise TrainingError where ``require_lift`` is "stop", unless ``teacher_lift`` says go."""
    lift = notes["teacher_lift"]
    if lift.get("outcome") == "go":
        return
    found = f"teacher_lift: {lift.get('verdict') or lift['skipped']}"
    remedy = "Take another teacher_contexts.builder, more teacher_contexts.n_demonstrations or a larger model"
    if section.require_lift == "stop":
        raise TrainingError(f"{found} {remedy}, or train all the same with distilled_adapter.require_lift=warn")
    if "outcome" in lift:
        _logger.warning("%s %s", found, f"{remedy}.")
