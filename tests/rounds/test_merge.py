"""The model that a round leaves: the weights that its adapter was evaluated with, to the last bit, for any round."""

from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model

from pipeline.adapters.config import DistilledAdapterConfig
from pipeline.chain import materialize
from pipeline.digests import digest_file
from pipeline.errors import ArtifactError
from pipeline.model_config import ModelConfig
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import load_model, load_tokenizer
from pipeline.rounds.config import RoundsConfig
from pipeline.rounds.merge import MODEL_FOLDER
from pipeline.stages import stage_of
from training.objectives.objective import lora_config
from training.run import save_adapter

MERGED = stage_of("merged_model")


@pytest.fixture
def merge(run, put):
    """Return a function that merges a random adapter into a model as a stage, and returns it and where it stands."""

    def merge_one(model, seed):
        torch.manual_seed(seed)
        adapted = get_peft_model(load_model(model).model, lora_config(DistilledAdapterConfig(lora_rank=4)))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)

        def save(folder):
            save_adapter(adapted, folder, SimpleNamespace(model=model))

        adapter = put(run, "distilled_adapter", model=model, notes={"seed": seed}, save=save)
        merged = materialize(MERGED, RoundsConfig(), model, run).artifact
        return adapter, merged, model.model_copy(update={"path": str(merged.folder / MODEL_FOLDER)})

    return merge_one


def weights(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_round_by_round_is_stacked_on_the_base_to_the_last_bit(merge, tiny_folder, dtype):
    base = ModelConfig(path=str(tiny_folder), dtype=dtype)
    first, _, after_first = merge(base, 1)
    second, merged, after_second = merge(after_first, 2)
    from peft import PeftModel

    stacked = load_model(base, first.folder).model
    between = weights(stacked)
    stacked = weights(PeftModel.from_pretrained(stacked, second.folder).merge_and_unload())
    kept = weights(load_model(after_second).model)
    assert kept.keys() == stacked.keys()
    assert all(torch.equal(kept[name], stacked[name]) for name in kept)
    assert any(not torch.equal(kept[name], between[name]) for name in kept)
    norms = dict(merged.read().select("tensor", "norm").iter_rows())
    assert norms == {name: pytest.approx(weight.double().norm().item()) for name, weight in kept.items()}


def test_made_again_it_has_the_same_bytes_and_the_same_fingerprint(merge, tiny_config, run):
    _, merged, model = merge(tiny_config, 1)
    files = {path.name: digest_file(path) for path in (merged.folder / MODEL_FOLDER).iterdir()}
    before = model_fingerprint(model)
    (merged.folder / "manifest.json").unlink()
    _, again, _ = merge(tiny_config, 1)
    assert again.manifest.digest == merged.manifest.digest
    assert {path.name: digest_file(path) for path in (again.folder / MODEL_FOLDER).iterdir()} == files
    assert model_fingerprint(model) == before
    assert len({path.stat().st_mode for path in (again.folder / MODEL_FOLDER).iterdir()}) == 1


def test_options_of_the_chat_template_go_along_once(merge, tiny_folder, tmp_path):
    tokenizer = load_tokenizer(ModelConfig(path=str(tiny_folder)))
    tokenizer.chat_template = "{% if enable_thinking %}think{% endif %}" + tokenizer.chat_template
    load_model(ModelConfig(path=str(tiny_folder))).model.save_pretrained(tmp_path / "thinker")
    tokenizer.save_pretrained(tmp_path / "thinker")
    model = ModelConfig(path=str(tmp_path / "thinker"), chat_template={"enable_thinking": True})
    _, _, after_first = merge(model, 1)
    _, _, after_second = merge(after_first, 2)
    templates = [load_tokenizer(one).chat_template for one in (model, after_first, after_second)]
    assert templates[0] == templates[1] == templates[2]
    assert "set enable_thinking = true" in templates[0]


def test_an_adapter_of_another_model_is_refused(merge, tiny_config, run):
    _, _, after_first = merge(tiny_config, 1)
    with pytest.raises(ArtifactError, match="'distilled_adapter' of run 'test' was made with other weights"):
        materialize(MERGED, RoundsConfig(), after_first, run)
