"""Making what a study needs: for each cell, an arm on a world under a seed, the stages up to its answers.

What is equal between cells is made once (``pipeline.store``), and a study that was cut off goes on where it was.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import polars as pl

from pipeline.answers.read import read_answers
from pipeline.chain import Materialization, materialize
from pipeline.config import Config
from pipeline.digests import digest_json
from pipeline.errors import ArtifactError, CurationError
from pipeline.evaluation.grade import grade
from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN
from pipeline.evaluation.run import test_gold
from pipeline.fingerprint import reachable_code
from pipeline.model_config import ModelConfig
from pipeline.models import load_tokenizer
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.reference.make import SHIPPED, make_world
from pipeline.section import Section
from pipeline.stage import StageSpec
from pipeline.stages import STAGES, open_store, stage_of
from pipeline.store.store import Run
from pipeline.study.config import Cell, StudyConfig, World, arm_of, cells, run_name, world_of


def make_worlds(worlds: Iterable[World], root: Path) -> None:
    """Make those of the worlds that are reference worlds, unless they stand."""
    for world in worlds:
        if world.reference_seed:
            make_world(world.reference_seed, _folder(world, root))


def answer_cells(study: StudyConfig, root: Path, n_jobs: int) -> Iterator[tuple[Cell, Path | str]]:
    """Make the cells in processes side by side; yield each with the file of its graded answers, or what went wrong."""
    with ProcessPoolExecutor(n_jobs, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(answer_cell, study, cell, root): cell for cell in cells(study)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def configure(study: StudyConfig, cell: Cell, root: Path) -> Config:
    """Return the configuration of a cell; raises ConfigError for a setting that there is not."""
    arm, world = arm_of(study, cell), world_of(study, cell)
    folder = _folder(world, root)
    files = (
        f"model.path={folder / 'model'}",
        f"raw_pool.path={folder / 'pool.jsonl'}",
        f"tests.in_domain_path={folder / 'in_domain_test.jsonl'}",
        f"tests.out_of_domain_path={folder / 'out_of_domain_test.jsonl'}",
    )
    placed = files if world.reference_seed is not None else ()
    enabled = ["ceiling_adapter.enabled=true"] if arm.of == "ceiling" else []
    return load_config(study.preset, [*placed, *study.set, *world.set, *enabled, *arm.set], cell.seed)


def stages_for(name: str) -> list[StageSpec]:
    """Return the stages that an artifact is made of, in order."""
    needed, waiting = set[str](), [name]
    while waiting:
        spec = stage_of(waiting.pop())
        if spec.name not in needed:
            needed.add(spec.name)
            waiting += [*spec.inputs, *spec.after, *spec.reads]
    return [spec for spec in STAGES if spec.name in needed]


def answer_cell(study: StudyConfig, cell: Cell, root: Path) -> Path | str:
    """Make a cell in this process, on one thread; return the file of its graded answers, or what went wrong."""
    import torch

    torch.set_num_threads(1)  # processes side by side; and the same sums on any number of cores
    os.environ["OMP_NUM_THREADS"] = "1"  # of the training processes
    try:
        return _graded(study, cell, root, materialize)
    except CurationError as error:  # the other cells go on
        return str(error)


def find_cell(study: StudyConfig, cell: Cell, root: Path) -> Path | str:
    """Return the file of a cell's graded answers where all its stages stand, or which of them does not."""
    try:
        return _graded(study, cell, root, _find)
    except CurationError as error:
        return str(error)


def _find(spec: StageSpec, section: Section, model: ModelConfig, run: Run) -> None:
    if Materialization(spec, section, model, run).standing() is None:
        raise ArtifactError(f"not made: '{spec.name}' of run '{run.name}' does not stand")


def _graded(study: StudyConfig, cell: Cell, root: Path, provide: Callable[..., object]) -> Path:
    config, predictions = configure(study, cell, root), f"{arm_of(study, cell).of}_predictions"
    run = open_store(root).run(run_name(study, cell))
    for spec in (*stages_for(predictions), stage_of("tests")):
        provide(spec, getattr(config, spec.key), config.model, run)
    answers, inputs = run.require(predictions), {name: run.require(name) for name in ("gold_labels", "test_labels")}
    read = [answers.manifest.digest, *(artifact.manifest.digest for artifact in inputs.values())]
    code = reachable_code(("pipeline.answers.read", "pipeline.evaluation.grade"))
    path = root / "graded" / f"{digest_json([cell.arm, code.digest, *read])[:32]}.parquet"
    if path.exists():
        return path
    tokenizer, tests, graded = load_tokenizer(config.model), run.require("tests"), []
    for split in (IN_DOMAIN, OUT_OF_DOMAIN):
        if len(questions := tests.read(split)):
            stated = read_answers(answers.read(split), questions, tokenizer)
            graded.append(grade(stated, test_gold(inputs, split, questions), cell.arm, split))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    pl.concat(graded).write_parquet(unfinished)
    unfinished.replace(path)
    return path


def _folder(world: World, root: Path) -> Path:
    # Relative, as presets have it: the same artifacts wherever the project lies.
    return root / "worlds" / str(world.reference_seed) if world.reference_seed else SHIPPED.relative_to(PROJECT_ROOT)
