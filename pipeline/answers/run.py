"""The stage ``answers``: shard by shard, so that its rows stand beside those of the rollouts."""

from pipeline.answers.config import AnswersConfig
from pipeline.answers.read import read_answers
from pipeline.models import load_tokenizer
from pipeline.stage import Task


def run(task: Task[AnswersConfig]) -> None:
    """Read the answers of all rollouts."""
    tokenizer, rollouts = load_tokenizer(task.model), task.inputs["rollouts"]
    questions = task.inputs["pool"].scan().select("id", "question", "options").collect()
    n_answers = 0
    for number, shard in enumerate(rollouts.scan_shards()):
        answers = read_answers(shard.collect(), questions, tokenizer)
        n_answers += answers["answer"].count()
        task.writer.write_shard(number, {"answers": answers})
    n_rollouts = sum(rollouts.manifest.rows.values())
    task.writer.notes = {"abstention_share": 1 - n_answers / max(n_rollouts, 1)}
