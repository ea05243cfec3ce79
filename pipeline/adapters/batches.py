"""How a step's trajectories are dealt: over processes, into micro-batches, and into groups of one question each."""

from pipeline.adapters.config import RivalAdapterConfig, TrainingConfig
from pipeline.errors import ConfigError


def check_batches(stage: str, settings: TrainingConfig) -> None:
    """Raise ConfigError, naming a number that would do, where a step's trajectories do not come out even.

    Args:
        stage: Section that the settings are from.
        settings: Training settings.
    """
    n_trajectories, n_processes = settings.trajectories_per_step, settings.processes
    if n_trajectories % n_processes:
        raise ConfigError(
            f"{stage}.processes = {n_processes} does not divide trajectories_per_step = {n_trajectories}: "
            "set it to a divisor, so that each process takes as many"
        )
    share = n_trajectories // n_processes
    each = f" / processes = {share}" if n_processes > 1 else ""
    if share % settings.micro_batch:
        raise ConfigError(
            f"{stage}.micro_batch = {settings.micro_batch} does not divide trajectories_per_step = "
            f"{n_trajectories}{each}: set it to a divisor, such as "
            f"{max(d for d in range(1, settings.micro_batch) if share % d == 0)}"
        )
    if isinstance(settings, RivalAdapterConfig) and settings.objective == "grpo" and share % settings.num_generations:
        # TRL 1.16 would part a group among processes, of which each sees its own part's majority.
        divisors = [d for d in range(2, share + 1) if share % d == 0]
        remedy = f"set it to one of {', '.join(map(str, divisors))}" if divisors else "take more trajectories"
        raise ConfigError(
            f"{stage}.num_generations = {settings.num_generations} does not divide trajectories_per_step = "
            f"{n_trajectories}{each}: {remedy}"
        )
