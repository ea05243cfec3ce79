"""Leave with the result: merge a run's adapter into its base model and write a folder that any server reads.

The folder holds the merged weights (safetensors), the tokenizer with its chat template, the generation settings and a
model card with lineage, training settings and, where the run has an evaluation, its table. It is written whole or not
at all, and to the same bytes each time. The weights are those that the run's evaluation asked: merged in the type of
the run's model.dtype, unless --dtype says otherwise. At the end stand the commands that serve the folder.

Exit status: 0 done, 2 it cannot be exported (one line on stderr says why), 130 interrupted.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import HfApi

from pipeline.errors import ArtifactError, ConfigError, CurationError, ModelError, TrainingError
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import LanguageModel, load_model
from pipeline.paths import PROJECT_ROOT, resolve_path
from pipeline.predictions.contenders import CONTENDERS
from pipeline.stages import CATALOGUE, open_store
from pipeline.store.artifact import MANIFEST, Artifact
from pipeline.store.lock import held
from pipeline.store.store import Run
from training.card import TAG, Exported, Trained, render_card
from training.checkpoints import sync, writing
from training.push import check_target, push
from training.serving import serve_adapter, serve_model

ADAPTERS: Final = tuple(name for contender in CONTENDERS for name in contender.adapter)
_CARD: Final = "README.md"
_ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
_PLACE: Final = "path/to/this/folder"
"""How a card names its folder, which may be anywhere."""
_SHARD: Final = "5GB"
"""Largest file of weights."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.adapter_only and options.dtype:
        parser.error("--dtype is the type of merged weights: leave it out with --adapter-only")
    if not options.push and (options.public or options.yes):
        parser.error("--public and --yes go with --push OWNER/NAME")
    try:
        if options.push and not (options.yes or sys.stdin.isatty()):
            raise ConfigError("--push asks before it uploads: give --yes where nobody can answer")
        api = HfApi() if options.push else None
        if api:
            check_target(api, options.push, options.public)
        run = open_store(PROJECT_ROOT / options.store).run(options.run)
        out = options.out.expanduser().resolve()
        commands = export(
            run, options.adapter, out, options.overwrite, options.adapter_only, options.dtype, options.model
        )
        if api:
            push(api, out, options.push, options.public, lambda: options.yes or _ask(), _say)
    except CurationError as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted: nothing half-written is left")
        return 130
    sys.stdout.write(f"{commands}\n")
    return 0


def export(
    run: Run,
    name: str,
    out: Path,
    overwrite: bool = False,
    adapter_only: bool = False,
    dtype: str | None = None,
    moved_to: str | None = None,
) -> str:
    """Write a run's adapter, merged into its base model unless ``adapter_only``, and return the commands that serve it.

    Args:
        run: The run.
        name: Artifact of the adapter.
        out: Folder to write.
        overwrite: Whether an earlier export there may be replaced.
        adapter_only: Leave the adapter as it is.
        dtype: Type of the merged weights; by default what the run loaded its model in.
        moved_to: Where the base model is, if no longer where it was for the run.

    Raises:
        ConfigError: the run's name, or a folder that must not be written.
        ArtifactError: the run, or a sound adapter, is missing.
        ModelError: the base model is not what the adapter was trained on, or cannot be loaded.
        TrainingError: the folder cannot be written.
    """
    started = time.monotonic()
    adapter, recorded = find_adapter(run, name)
    base = recorded.model_copy(update={"path": moved_to or recorded.path, "device": "cpu"})
    _check_out(out, overwrite, run, base)
    _say(f"checking {base.path}")
    check_base(run, adapter, base)
    told = Trained(
        stage=name,
        objective=adapter.manifest.settings["objective"],
        model=recorded,
        model_fingerprint=adapter.manifest.provenance["model"],
        lineage=adapter.manifest.provenance["inputs"],
        fingerprint=adapter.manifest.fingerprint,
        settings=adapter.manifest.provenance["settings"],
        notes=adapter.manifest.notes,
        log=adapter.read(),
    )
    evaluation = describe_evaluation(run, adapter)
    if not evaluation:
        _say(f"warning: run '{run.name}' has no evaluation of this '{name}': the model card has no table")
    merged = None if adapter_only else _merge(adapter, base, dtype)
    stored = str(merged.model.dtype).removeprefix("torch.") if merged else ""

    def commands(folder: str, model: ModelConfig) -> str:
        rank = adapter.manifest.settings["lora_rank"]
        return serve_model(folder, stored) if merged else serve_adapter(folder, model, rank)

    _say(f"writing {out}")
    with whole(out) as part:
        if merged:
            merged.model.save_pretrained(part, max_shard_size=_SHARD)
            merged.tokenizer.save_pretrained(part)
        else:
            for file in _ADAPTER_FILES:
                shutil.copyfile(adapter.folder / file, part / file)
        exported = Exported(merged is not None, stored, evaluation, commands(_PLACE, recorded))
        render_card(told, exported).save(part / _CARD)
        for path in part.iterdir():
            shutil.copymode(part / _CARD, path)  # weights by safetensors 0.8 nobody else may read, such as a server
    n_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    _say(f"exported {out} ({n_bytes / 1e6:,.1f} MB, {time.monotonic() - started:.0f} s)")
    return commands(str(out), base)


def find_adapter(run: Run, name: str) -> tuple[Artifact, ModelConfig]:
    """Return a run's trained adapter and the base model that it was trained on; raises ArtifactError without one."""
    if not run.folder.is_dir():
        raise ArtifactError(
            f"there is no run '{run.name}' in {run.store.runs}: 'python -m pipeline.store list' shows those that there "
            "are, --store names another folder"
        )
    adapter = run.require(name)
    notes = adapter.manifest.notes
    if "skipped" in notes:
        raise ArtifactError(
            f"'{name}' of run '{run.name}' was not trained ({notes['skipped']}): set {name}.enabled=true and run it "
            "again, or name another by --adapter"
        )
    if not adapter.is_intact(thorough=True):
        raise ArtifactError(f"'{name}' of run '{run.name}' is damaged: materialize '{name}' again")
    if "model" not in notes:
        raise ArtifactError(f"'{name}' of run '{run.name}' is of earlier code: materialize '{name}' again")
    return adapter, ModelConfig.model_validate(notes["model"])


def check_base(run: Run, adapter: Artifact, base: ModelConfig) -> None:
    """Raise ModelError unless an adapter was trained on the run's model, and ``base`` still is that."""
    trained_on = adapter.manifest.provenance["model"]
    for name in CATALOGUE:
        other = run.find(name)
        if other and other.manifest.provenance["model"] not in (None, trained_on):
            raise ModelError(
                f"'{adapter.name}' of run '{run.name}' was trained on another base model than its '{name}' was made "
                f"with: materialize '{adapter.name}' again"
            )
    try:
        now = model_fingerprint(base)
    except ModelError as error:
        raise ModelError(f"{error}; if it was moved, name where it is by --model") from error
    if now != trained_on:
        raise ModelError(
            f"'{base.path}' has other weights or files than when '{adapter.name}' was trained on it: bring those back "
            f"(--model names another folder), or materialize '{adapter.name}' again"
        )


def describe_evaluation(run: Run, adapter: Artifact) -> str:
    """Return what the run's evaluation says of this very adapter, as Markdown; empty where it does not."""
    contender = next(contender for contender in CONTENDERS if adapter.name in contender.adapter)
    evaluation, predictions = run.find("evaluation"), run.find(contender.predictions)
    if evaluation is None or predictions is None:
        return ""
    judged = evaluation.manifest.provenance["inputs"].get(predictions.name)
    asked = predictions.manifest.provenance["inputs"].get(adapter.name)
    if (judged, asked) != (predictions.manifest.digest, adapter.manifest.digest):
        return ""
    settings, notes = evaluation.manifest.settings, evaluation.manifest.notes
    gold = [contender.label for contender in CONTENDERS if contender.label and "gold" in contender.label]
    marked = "".join(f" *{label}* was trained on gold answers: a ceiling, no result." for label in gold)
    return (
        f"This model is *{contender.label or adapter.manifest.notes['label']}*. Each figure stands with its "
        f"{settings['confidence_level']:.0%} bootstrap interval over questions ({settings['n_resamples']} resamples), "
        f"which does not cover the randomness of training.{marked if any(g in notes['table'] for g in gold) else ''}"
        f"\n\n{notes['table']}"
    )


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Yield a folder to write in that takes the place of ``out`` when the block ends without error.

    Otherwise nothing is left of it and ``out`` is as it was. Raises TrainingError where it cannot be written, as on a
    full disk, or another process writes it.
    """
    part, old = (out.with_name(f".{out.name}.{kind}") for kind in ("part", "old"))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with held(part) as free:
            if not free:
                raise TrainingError(f"another process is exporting into {out}: wait for it, or end it")
            shutil.rmtree(part, ignore_errors=True)  # of an export that was killed
            part.mkdir()
            try:
                yield part
                sync(part)
                if out.exists():
                    shutil.rmtree(old, ignore_errors=True)
                    os.rename(out, old)
                os.rename(part, out)
            finally:
                shutil.rmtree(part, ignore_errors=True)
                if old.exists() and not out.exists():  # cut off between the two
                    os.rename(old, out)
            shutil.rmtree(old, ignore_errors=True)


def _merge(adapter: Artifact, base: ModelConfig, dtype: str | None) -> LanguageModel:
    loaded: Any = base.model_copy(update={"dtype": dtype or base.dtype})
    _say(f"merging '{adapter.name}' into {base.path}")
    with torch.inference_mode():
        return load_model(loaded, adapter.folder)


def _check_out(out: Path, overwrite: bool, run: Run, base: ModelConfig) -> None:
    """Raise ConfigError for a folder that is not this program's to write."""
    if out == resolve_path(base.path).resolve() or out.is_relative_to(run.store.artifacts.resolve()):
        raise ConfigError(f"--out {out} is the base model's or the store's: name another folder")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: name a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise ConfigError(f"--out {out} is not empty: name another folder, or give --overwrite to replace an export")
    card = out / _CARD
    if (out / MANIFEST).exists() or not card.is_file() or f"- {TAG}\n" not in card.read_text(encoding="utf-8"):
        raise ConfigError(f"--out {out} is no earlier export, so --overwrite leaves it alone: name another folder")


def _ask() -> bool:
    sys.stderr.write("upload? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", required=True, metavar="NAME", help="the run, as 'python -m pipeline.store list' shows"
    )
    parser.add_argument(
        "--store", default="data", metavar="FOLDER", help="folder that holds store and runs (%(default)s)"
    )
    parser.add_argument(
        "--adapter", default="distilled_adapter", choices=ADAPTERS, help="which of its adapters (%(default)s)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export there")
    parser.add_argument("--adapter-only", action="store_true", help="write the LoRA adapter with its card, not merged")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="type of the merged weights (what the run loaded its model in, and evaluated)",
    )
    parser.add_argument("--model", metavar="FOLDER", help="where the base model is, if it was moved since the run")
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="then upload the folder to the Hugging Face hub, after showing what and asking",
    )
    parser.add_argument("--public", action="store_true", help="for everyone to read (a new repository is private)")
    parser.add_argument("--yes", action="store_true", help="upload without asking")
    return parser


if __name__ == "__main__":
    sys.exit(main())
