"""A run leaves as a folder: the model that was evaluated, whole or not at all, and nowhere without a yes."""

import os
import resource
import shlex
import signal
import subprocess
import sys
from types import SimpleNamespace

import httpx2
import polars as pl
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError
from peft import PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pipeline.adapters.config import CeilingAdapterConfig, DistilledAdapterConfig
from pipeline.adapters.schemas import TRAINING_LOG
from pipeline.answers.schemas import ANSWERS
from pipeline.digests import digest_file
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import encode_chat, load_model
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.score import NeuronScorer, scorable
from pipeline.paths import PROJECT_ROOT
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.store.lock import held
from training.export import main
from training.objectives.objective import lora_config
from training.run import save_adapter

SECTIONS = {"distilled_adapter": DistilledAdapterConfig, "ceiling_adapter": CeilingAdapterConfig}
LOG = pl.DataFrame(TRAINING_LOG.empty_table()).schema
TABLE = "|  | untouched | distilled | ceiling (gold) |\n| - | - | - | - |\n| Acc | 1 [0, 2] | 2 [1, 3] | 3 [2, 4] |"
IDS = torch.tensor([[2, 40, 50, 60, 1, 3]])


def call(run, out, *options):
    return main(["--run", run.name, "--store", str(run.store.root), "--out", str(out), *options])


def files(folder):
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in folder.rglob("*") if path.is_file()}


def logits(model, ids=IDS):
    with torch.inference_mode():
        return model(ids).logits.float()


@pytest.fixture(scope="module")
def bases(tiny_folder, tmp_path_factory):
    """Folders of the tiny model: as it is, with tied embeddings, and in bfloat16; each with own generation settings."""
    folders = {}
    for kind in ("untied", "tied", "bfloat16"):
        tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
        config = AutoConfig.from_pretrained(tiny_folder, tie_word_embeddings=kind == "tied")
        torch.manual_seed(0)
        dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.generation_config = GenerationConfig(do_sample=True, temperature=0.7, eos_token_id=[1, 2])
        folders[kind] = tmp_path_factory.mktemp(kind) / "base"
        model.save_pretrained(folders[kind])
        tokenizer.save_pretrained(folders[kind])
    return folders


@pytest.fixture
def trained(run):
    """Return a function that puts a random adapter for a base model into the run."""

    def put_adapter(base, name="distilled_adapter", **options):
        model = ModelConfig(path=str(base), **options)
        section = SECTIONS[name](lora_rank=4, lora_alpha=8, **({"enabled": True} if name == "ceiling_adapter" else {}))
        torch.manual_seed(1)
        adapted = get_peft_model(load_model(model).model, lora_config(section))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        provenance = {
            "inputs": {"teacher_contexts": "a digest"},
            "model": model_fingerprint(model),
            "settings": section.material(),
        }
        with run.store.write(name, "0" * 32, section.model_dump(mode="json"), provenance) as writer:
            save_adapter(adapted, writer.folder, SimpleNamespace(model=model))
            writer.append("training_log", pl.DataFrame([dict.fromkeys(LOG, 1)], schema=LOG))
            writer.notes = {
                "training_questions": 6,
                "title": "own method",
                "summary": "What it is.",
                "label": "own",
                "model": model.model_dump(mode="json", exclude={"device"}),
            }
        return run.show(name, "0" * 32)

    return put_adapter


@pytest.fixture
def evaluated(run, put):
    """Return a function that puts an evaluation of the run's adapter into the run."""

    def put_evaluation():
        put(run, "distilled_predictions", inputs=["distilled_adapter"])
        settings = {"confidence_level": 0.9, "n_resamples": 500}
        put(run, "evaluation", inputs=["distilled_predictions"], settings=settings, notes={"table": TABLE})

    return put_evaluation


@pytest.mark.parametrize("kind", ["untied", "tied"])
def test_the_merged_model_is_base_and_adapter_for_whoever_loads_it(bases, trained, run, tmp_path, kind):
    adapter = trained(bases[kind])
    assert call(run, tmp_path / "out") == 0
    base = AutoModelForCausalLM.from_pretrained(bases[kind])
    before = logits(base)
    expected = logits(PeftModel.from_pretrained(base, adapter.folder))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(merged) is type(load_model(ModelConfig(path=str(bases[kind]))).model)
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=0)
    assert (logits(merged) - before).abs().max() > 0.1
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) == (kind == "tied")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as stored:
        assert ("lm_head.weight" in stored.keys()) == (kind == "untied")  # noqa: SIM118
        assert not [name for name in stored.keys() if "lora" in name]  # noqa: SIM118


def test_it_loads_without_peft(bases, trained, run, tmp_path):
    trained(bases["untied"])
    assert call(run, tmp_path / "out") == 0
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'out')!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(tmp_path / 'out')!r})\n"
        "ids = tokenizer.apply_chat_template([{'role': 'user', 'content': 'x'}], return_tensors='pt')\n"
        "print(model.generate(**ids, max_new_tokens=2).shape[1] > ids['input_ids'].shape[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_tokenizer_template_and_generation_settings_go_along(bases, trained, run, tmp_path):
    trained(bases["untied"])
    call(run, tmp_path / "out")
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (bases["untied"], tmp_path / "out"))
    assert (after.chat_template, after.get_vocab()) == (before.chat_template, before.get_vocab())
    assert (after.eos_token, after.pad_token) == (before.eos_token, before.pad_token)
    kept = GenerationConfig.from_pretrained(tmp_path / "out")
    assert (kept.temperature, kept.eos_token_id) == (0.7, [1, 2])


def test_options_of_the_template_are_the_runs_unless_who_renders_it_says_otherwise(tiny_folder, trained, run, tmp_path):
    base = tmp_path / "base"
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template += "[{{ enable_thinking }}]"
    AutoModelForCausalLM.from_pretrained(tiny_folder).save_pretrained(base)
    tokenizer.save_pretrained(base)
    trained(base, chat_template={"enable_thinking": True})
    assert call(run, tmp_path / "out") == 0
    exported = AutoTokenizer.from_pretrained(tmp_path / "out")
    for options, shown in (({}, "[True]"), ({"enable_thinking": False}, "[False]")):
        messages = [{"role": "user", "content": "x"}]
        assert exported.apply_chat_template(messages, tokenize=False, **options).endswith(shown)
    again = load_model(ModelConfig(path=str(tmp_path / "out"), chat_template={"enable_thinking": False})).tokenizer
    assert again.apply_chat_template(messages, tokenize=False).endswith("[False]")


def test_the_next_round_begins_with_it(bases, trained, run, tmp_path):
    trained(bases["untied"])
    call(run, tmp_path / "out")
    config = ModelConfig(path=str(tmp_path / "out"))
    assert model_fingerprint(config) != model_fingerprint(ModelConfig(path=str(bases["untied"])))
    language_model = load_model(config)
    empty = (pl.LazyFrame(pl.DataFrame(schema.empty_table())) for schema in (ROLLOUTS, ANSWERS))
    kinds = scorable(*empty).collect_schema()
    rollout = {"id": "q", "sample": 0, "prompt_ids": encode_chat(language_model.tokenizer, "x")}
    row = dict.fromkeys(kinds) | rollout | {"response_ids": [40, 41, 1], "logprobs": [-1.0, -1.0, -1.0]}
    scores = NeuronScorer(language_model, NeuronScoresConfig()).score(pl.DataFrame([row], schema=kinds))
    [neurons] = scores.neuron_scores["neurons"]
    assert len(neurons) > 0


@pytest.mark.parametrize(("dtype", "options"), [("bfloat16", []), ("float32", ["--dtype", "float32"])])
def test_weights_are_of_the_runs_type_or_of_the_one_asked_for(bases, trained, run, tmp_path, capsys, dtype, options):
    adapter = trained(bases["bfloat16"])
    assert call(run, tmp_path / "out", *options) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.dtype == getattr(torch, dtype)
    evaluated = load_model(ModelConfig(path=str(bases["bfloat16"]), dtype=dtype), adapter.folder).model
    assert torch.equal(logits(merged), logits(evaluated))
    assert f"--outtype {'bf16' if dtype == 'bfloat16' else 'f32'}" in capsys.readouterr().out
    assert f"| weights | {dtype} |" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("options", [[], ["--adapter-only"]])
def test_the_bytes_repeat_and_name_no_place(bases, trained, run, tmp_path, options):
    trained(bases["untied"])
    for place in ("one", "deeper/two"):
        assert call(run, tmp_path / place, *options) == 0
    assert files(tmp_path / "one") == files(tmp_path / "deeper/two")
    for path in (tmp_path / "one").glob("*"):
        assert str(tmp_path).encode() not in path.read_bytes()
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_whoever_may_read_the_card_may_read_the_weights(bases, trained, run, tmp_path):
    trained(bases["untied"])
    call(run, tmp_path / "out")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "x.md").touch()
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("x.safetensors", "x.md")]
    assert modes[0] == 0o600, "safetensors grants what the umask does: copymode in training/export.py can go"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {modes[1]}


def test_the_card_tells_lineage_settings_and_evaluation(bases, trained, evaluated, run, tmp_path):
    adapter = trained(bases["untied"])
    evaluated()
    call(run, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    tags = ["neuron-opsd", "opsd"]  # no base model: one that is not on the hub would be refused there
    assert card.data.to_dict() == {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}
    told = [
        "# Language model by own method\n\nWhat it is.\n\n## Evaluation\n\nThis model is *distilled*.",
        f"{TABLE}\n\n## Lineage\n",
        "its 90% bootstrap interval over questions (500 resamples)",
        "*ceiling (gold)* was trained on gold answers: a ceiling",
        f"| base model fingerprint | `{adapter.manifest.provenance['model']}` |",
        "| `teacher_contexts`, SHA-256 | `a digest` |",
        "distilled_adapter:\n  objective: opsd\n",
        "  lora_rank: 4\n",
        "vllm serve path/to/this/folder\n",
    ]
    assert [fact for fact in told if fact not in card.text] == []
    assert "PeftModel" not in card.text


def test_an_evaluation_of_another_adapter_is_not_told(bases, trained, evaluated, run, put, tmp_path, capsys):
    trained(bases["untied"])
    evaluated()
    put(run, "distilled_predictions", notes={"of": "another"})
    call(run, tmp_path / "out")
    assert "## Evaluation" not in (tmp_path / "out" / "README.md").read_text()
    assert "has no evaluation of this 'distilled_adapter'" in capsys.readouterr().err


def test_the_commands_that_serve_it(bases, trained, run, tmp_path, capsys):
    trained(bases["untied"])
    out = tmp_path / "my model"
    call(run, out)
    commands = [shlex.split(line, comments=True) for line in capsys.readouterr().out.splitlines()]
    assert commands == [
        ["vllm", "serve", str(out)],
        ["transformers", "serve", str(out)],
        ["python", "llama.cpp/convert_hf_to_gguf.py", str(out), "--outtype", "f32", "--outfile", f"{out}.gguf"],
        ["llama-server", "-m", f"{out}.gguf"],
    ]


def test_the_adapter_alone(bases, trained, run, tmp_path, capsys):
    adapter, base = trained(bases["untied"], name="ceiling_adapter"), str(bases["untied"])
    assert call(run, tmp_path / "out", "--adapter-only", "--adapter", "ceiling_adapter") == 0
    assert set(files(tmp_path / "out")) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    one, two = (
        logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder))
        for folder in (adapter.folder, tmp_path / "out")
    )
    assert torch.equal(one, two)
    vllm, convert, _ = capsys.readouterr().out.splitlines()
    assert vllm == (f"vllm serve {base} --enable-lora --max-lora-rank 8 --lora-modules adapter={tmp_path / 'out'}")
    assert f"convert_lora_to_gguf.py {tmp_path / 'out'} --base {base}" in convert
    text = (tmp_path / "out" / "README.md").read_text()
    assert "# LoRA adapter by own method" in text
    assert "PeftModel.from_pretrained" in text


def refused(capsys, status):
    error = capsys.readouterr().err.splitlines()[-1]
    assert status == 2
    assert error.startswith("error: ")
    return error


def test_no_run_no_adapter_and_one_that_was_not_trained(run, put, tmp_path, capsys):
    assert "there is no run 'test'" in refused(capsys, call(run, tmp_path / "out"))
    put(run, "ceiling_adapter", notes={"skipped": "ceiling_adapter.enabled is false"})
    assert "materialize 'distilled_adapter' first" in refused(capsys, call(run, tmp_path / "out"))
    error = refused(capsys, call(run, tmp_path / "out", "--adapter", "ceiling_adapter"))
    assert "'ceiling_adapter' of run 'test' was not trained (ceiling_adapter.enabled is false): set" in error
    put(run, "rival_adapter")
    error = refused(capsys, call(run, tmp_path / "out", "--adapter", "rival_adapter"))
    assert "'rival_adapter' of run 'test' is of earlier code: materialize 'rival_adapter' again" in error
    assert not (tmp_path / "out").exists()


def test_a_damaged_adapter(bases, trained, run, tmp_path, capsys):
    weights = trained(bases["untied"]).folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o600)
    weights.write_bytes(content)
    assert "is damaged: materialize 'distilled_adapter' again" in refused(capsys, call(run, tmp_path / "out"))


def test_an_adapter_for_another_model_than_the_runs(bases, trained, run, put, tmp_path, capsys):
    trained(bases["untied"])
    put(run, "rollouts", model=ModelConfig(path=str(bases["tied"])))
    error = refused(capsys, call(run, tmp_path / "out"))
    assert "was trained on another base model than its 'rollouts' was made with: materialize" in error


def test_a_base_model_that_changed_or_moved(bases, tiny_folder, trained, run, tmp_path, capsys):
    base = tmp_path / "base"
    load = AutoModelForCausalLM.from_pretrained(bases["untied"])
    for store in (load, AutoTokenizer.from_pretrained(bases["untied"])):
        store.save_pretrained(base)
    trained(base)
    base.rename(tmp_path / "moved")
    assert "if it was moved, name where it is by --model" in refused(capsys, call(run, tmp_path / "out"))
    assert call(run, tmp_path / "out", "--model", str(tmp_path / "moved")) == 0
    other = call(run, tmp_path / "two", "--model", str(bases["tied"]))
    assert "has other weights or files than when 'distilled_adapter' was trained on it" in refused(capsys, other)


def test_what_stands_in_the_folder_is_kept_unless_it_is_an_export(bases, trained, run, tmp_path, capsys):
    adapter = trained(bases["untied"])
    out = tmp_path / "out"
    (out / "mine").mkdir(parents=True)
    assert "is not empty: name another folder, or give --overwrite" in refused(capsys, call(run, out))
    assert "no earlier export, so --overwrite leaves it alone" in refused(capsys, call(run, out, "--overwrite"))
    (out / "mine").rmdir()
    assert call(run, out) == 0
    (out / "stale.safetensors").touch()
    assert call(run, out, "--overwrite") == 0
    assert "stale.safetensors" not in files(out)
    assert "is a file: name a folder" in refused(capsys, call(run, out / "README.md", "--overwrite"))
    for place in (bases["untied"], adapter.folder):
        before = files(place)
        assert "is the base model's or the store's" in refused(capsys, call(run, place, "--overwrite"))
        assert files(place) == before


@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_leaves_what_was_there(bases, trained, run, tmp_path, capsys, earlier):
    trained(bases["untied"])
    out = tmp_path / "out"
    if earlier:
        call(run, out)
    before = files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # the system itself refuses, midway in a file
    try:
        status = call(run, out, "--overwrite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert f"{out} cannot be written (" in refused(capsys, status)
    assert files(tmp_path) == before
    assert out.exists() == earlier
    assert not list(tmp_path.glob(".out*"))


def test_an_interrupt_leaves_nothing(bases, trained, run, tmp_path, monkeypatch):
    trained(bases["untied"])

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.export.sync", interrupt)  # all files stand in the hidden folder
    assert call(run, tmp_path / "out") == 130
    assert not list(tmp_path.glob("*out*"))


def test_an_interrupt_between_two_renamings_leaves_the_earlier_export(bases, trained, run, tmp_path, monkeypatch):
    trained(bases["untied"])
    assert call(run, tmp_path / "out") == 0
    before, rename = files(tmp_path), os.rename

    def interrupt(source, target):
        if source.suffix == ".part":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr("training.export.os.rename", interrupt)
    assert call(run, tmp_path / "out", "--overwrite", "--dtype", "bfloat16") == 130
    assert files(tmp_path) == before


def test_two_exports_into_one_folder(bases, trained, run, tmp_path, capsys):
    trained(bases["untied"])
    with held(tmp_path / ".out.part"):
        assert "another process is exporting into" in refused(capsys, call(run, tmp_path / "out"))


class Hub:
    """Stands in for the hub: repositories with their visibility, and what was asked of it."""

    endpoint = "https://hub"

    def __init__(self, login=True, private=None, fails=False):
        self.login, self.private, self.fails, self.asked = login, private, fails, []

    def whoami(self):
        if not self.login:
            raise LocalTokenNotFoundError("no token")

    def model_info(self, repository):
        if self.private is None:
            request = httpx2.Request("GET", self.endpoint)
            raise RepositoryNotFoundError("not there", response=httpx2.Response(404, request=request))
        return SimpleNamespace(private=self.private)

    def create_repo(self, repository, private):
        self.asked.append(("create", repository, private))

    def upload_folder(self, repo_id, folder_path, commit_message):
        if self.fails:
            raise httpx2.ConnectError("no way to the hub")
        self.asked.append(("upload", repo_id, sorted(files(folder_path))))


@pytest.fixture
def pushed(bases, trained, run, tmp_path, monkeypatch):
    """Return a function that exports and pushes to a hub, with an answer typed where it asks."""
    trained(bases["untied"])

    def push_to(hub, *options, answer=None):
        monkeypatch.setattr("training.export.HfApi", lambda: hub)
        asked = SimpleNamespace(isatty=lambda: answer is not None, readline=lambda: f"{answer}\n")
        monkeypatch.setattr("sys.stdin", asked)
        return call(run, tmp_path / "out", "--overwrite", "--push", "me/model", *options)

    return push_to


def test_pushing_is_private_and_shows_what_goes_where_before_it_asks(pushed, tmp_path, capsys):
    hub = Hub()
    assert pushed(hub, answer="no") == 0
    assert hub.asked == []
    lines = capsys.readouterr().err.splitlines()
    start = lines.index("to upload to https://hub/me/model (private, new):")
    shown = {line.split()[0] for line in lines[start + 1 :] if line.endswith(" MB")}
    assert shown == {*files(tmp_path / "out"), "all"}
    assert lines[-1] == "upload? [y/N] not uploaded"
    assert pushed(hub, answer="y") == 0
    assert hub.asked == [("create", "me/model", True), ("upload", "me/model", sorted(files(tmp_path / "out")))]


def test_pushing_in_public_and_to_what_is_there(pushed, capsys):
    hub = Hub()
    assert pushed(hub, "--public", "--yes") == 0
    assert hub.asked[0] == ("create", "me/model", False)
    assert "(public, for everyone to read, new)" in capsys.readouterr().err
    hub = Hub(private=True)
    assert pushed(hub, "--yes") == 0
    assert [step[0] for step in hub.asked] == ["upload"]
    assert "(private, replacing files)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hub", "options", "message"),
    [
        (Hub(login=False), ["--yes"], "--push me/model: there is no token of the hub: log in with 'hf auth login'"),
        (Hub(), [], "--push asks before it uploads: give --yes where nobody can answer"),
        (Hub(private=False), ["--yes"], "it is there and public: give --public, or name another repository"),
        (Hub(private=True), ["--yes", "--public"], "it is there and private: leave --public out, or name another"),
        (Hub(), ["--yes", "--push", "model"], "--push model: name it as OWNER/NAME"),
    ],
)
def test_what_cannot_be_pushed_is_told_before_the_work(pushed, tmp_path, capsys, hub, options, message):
    assert message in refused(capsys, pushed(hub, *options))
    assert (hub.asked, (tmp_path / "out").exists()) == ([], False)


def test_a_hub_that_fails_leaves_the_folder(pushed, tmp_path, capsys):
    error = refused(capsys, pushed(Hub(fails=True), "--yes"))
    assert f"no way to the hub: {tmp_path / 'out'} is whole, go on with 'hf upload me/model" in error
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("options", [["--adapter-only", "--dtype", "float32"], ["--public"], ["--adapter", "base"]])
def test_options_that_do_not_go_together(run, tmp_path, options):
    with pytest.raises(SystemExit) as caught:
        call(run, tmp_path / "out", *options)
    assert caught.value.code == 2


def test_make_export_names_run_and_folder():
    command = ["make", "-n", "export", "RUN=mine", "OUT=there", "ARGS=--adapter rival_adapter"]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert "-m training.export --run mine --out there --adapter rival_adapter" in done.stdout
