"""Shared by all tests: a tiny random Qwen3 with a byte-level tokenizer, and no network."""

import os
import shutil
import subprocess

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
os.environ.pop("DAGSTER_HOME", None)  # runs of tests stay out of the user's Dagster instance

from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from pipeline.digests import digest_json
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import LanguageModel
from pipeline.reference.model import CHAT_TEMPLATE
from pipeline.stages import CATALOGUE, open_store
from pipeline.store.shards import shard_number
from pipeline.store.store import Run

settings.register_profile("any machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any machine")


def pytest_collection_modifyitems(items):
    """Put files with slow tests first, so that none of the processes that share them is left with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIAL, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=SPECIAL[1], padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=512,
            initializer_range=0.3,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return LanguageModel(model.eval(), tokenizer)


@pytest.fixture(scope="session")
def tiny_folder(tiny: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_config(tiny_folder: Path) -> ModelConfig:
    return ModelConfig(path=str(tiny_folder))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_store(tmp_path / "data").run("test")


NOTHING = {pl.String: "", pl.Boolean: False, pl.List: []}


@pytest.fixture(scope="session")
def put():
    """Return a function that makes rows an artifact of a run, as if its stage had.

    Columns that rows leave out hold nothing. With ``n_shards``, rows stand in shards by question; ``inputs`` are other
    artifacts of the run that it was made from; ``save`` puts files into its folder.
    """

    def put_artifact(run, name, *, model=None, inputs=(), settings=None, notes=None, save=None, n_shards=0, **tables):
        provenance = {
            "inputs": {source: run.require(source).manifest.digest for source in inputs},
            "model": model and model_fingerprint(model),
        }
        fingerprint = digest_json([provenance, settings, notes, n_shards, tables])[:32]
        with run.store.write(name, fingerprint, settings or {}, provenance) as writer:
            writer.notes = notes or {}
            if save:
                save(writer.folder)
            for table, rows in tables.items():
                kinds = pl.DataFrame(CATALOGUE[name][table].empty_table()).schema
                empty = {column: NOTHING.get(kind.base_type(), 0) for column, kind in kinds.items()}
                frame = pl.DataFrame([empty | row for row in rows], schema=kinds)
                if not n_shards:
                    writer.append(table, frame)
                numbers = [shard_number(question, n_shards) for question in frame["id"]] if n_shards else []
                for number in sorted(set(numbers)):
                    mask = pl.Series([number == other for other in numbers])
                    writer.write_shard(number, {table: frame.filter(mask)})
        return run.show(name, fingerprint)

    return put_artifact


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"


@pytest.fixture(scope="module")
def browser():
    """A headless browser of this machine (Playwright's ``Browser``): ``browser.new_page(color_scheme="dark")``.

    Not of the session: Playwright leaves an event loop running in the thread, which ``asyncio.run`` does not bear.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test installs it")
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox, which needs rights that root in a container lacks: all pages are the project's own.
        yield playwright.chromium.launch(executable_path=path, chromium_sandbox=False, args=QUIET.split())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, and a function that gives it another size in KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(kilobytes: int) -> None:
        how = "remount," if folder.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{how}size={kilobytes}k", "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True)

    try:
        resize(64)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small disk can be mounted here: that takes the rights of root, and mount (Linux)")
    try:
        yield folder, resize
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
