"""The stages of predictions."""

from pipeline.digests import digest_json
from pipeline.predictions.config import ASK, PredictionsConfig
from pipeline.rollouts.config import SampledPrompts
from pipeline.rollouts.run import sample_shards
from pipeline.rollouts.sample import Asking
from pipeline.stage import Task, resolve
from pipeline.store.artifact import Artifact


def run(task: Task[PredictionsConfig]) -> None:
    """Ask the model, with the adapter among the inputs if there is one, both tests. An adapter left out leaves none."""
    section, prompts = task.section, task.settings("rollouts", SampledPrompts)
    adapters = [artifact for name, artifact in task.inputs.items() if name != "tests"]
    adapter = adapters[0] if adapters else None
    if adapter:
        task.writer.notes |= adapter.manifest.notes
        if "skipped" in adapter.manifest.notes:
            return
    asking = Asking.of(section, prompts)
    for split in ("in_domain", "out_of_domain"):
        questions = task.inputs["tests"].read(split)
        loaded = (adapter.folder, _weights_digest(adapter)) if adapter else None
        if len(questions):
            sample_shards(task, split, questions, asking, adapter=loaded)
        if len(questions) and section.p_true:
            task.writer.append(f"{split}_p_true", resolve(ASK)(task, split, questions, adapter and adapter.folder))


def _weights_digest(adapter: Artifact) -> str:
    """Return the digest of what responses depend on: not of the model card, which names the run."""
    digests = adapter.manifest.digests
    return digest_json([digests["adapter_model.safetensors"], digests["adapter_config.json"]])
