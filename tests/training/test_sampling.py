"""The student's samples while it trains: what determines them, and what may not."""

import pytest
import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer

from pipeline.adapters.config import DistilledAdapterConfig
from pipeline.generation.config import Sampling
from pipeline.generation.generator import Request
from pipeline.generation.transformers import TransformersGenerator
from pipeline.model_config import ModelConfig
from pipeline.models import LanguageModel, encode_chat, load_model
from pipeline.seeding import derive_seed
from training.objectives.objective import lora_config
from training.sampling import sample_responses

SAMPLING = Sampling(temperature=0.9, top_p=0.95, max_new_tokens=12)
KEYS = [("q0", 0), ("q0", 1), ("q1", 0), ("q2", 0)]
TEXTS = ["colour?", "colour?", "another colour, please?", "and?"]


@pytest.fixture(scope="module")
def student(tiny_folder):
    """A model in training mode with an adapter that changes it and has dropout."""
    base = load_model(ModelConfig(path=str(tiny_folder)))
    torch.manual_seed(0)
    model = get_peft_model(base.model, lora_config(DistilledAdapterConfig(lora_dropout=0.5)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.train()
    return LanguageModel(model.get_base_model(), base.tokenizer)


def adapted(student):
    return [module for module in student.model.modules() if isinstance(module, LoraLayer)]


def draw(student, rows=range(4), step=3, seed=5):
    prompts = [encode_chat(student.tokenizer, TEXTS[row]) for row in rows]
    completions = sample_responses(student, prompts, SAMPLING, [KEYS[row] for row in rows], seed, step)
    return [completion.response_ids for completion in completions]


def test_responses_are_the_generators_own_with_the_adapter_and_without_dropout(student):
    drawn = draw(student)
    assert student.model.training
    student.model.eval()
    requests = [
        Request(question, number, derive_seed(5, "student", 3, question, number), encode_chat(student.tokenizer, text))
        for (question, number), text in zip(KEYS, TEXTS, strict=True)
    ]
    expected = [c for part in TransformersGenerator(student, 10_000).sample(requests, SAMPLING) for c in part]
    student.model.train()
    found = {(c.request.id, c.request.sample): c.response_ids for c in expected}
    assert drawn == [found[key] for key in KEYS]
    for layer in adapted(student):
        layer.enable_adapters(False)
    base = draw(student)
    for layer in adapted(student):
        layer.enable_adapters(True)
    assert base != drawn


def test_a_response_depends_on_seed_step_and_question_alone(student):
    drawn = draw(student)
    assert drawn[0] != drawn[1]  # two responses to one question
    torch.manual_seed(7)
    assert draw(student, rows=[3, 1]) == [drawn[3], drawn[1]]
    assert [draw(student, rows=[row])[0] for row in range(4)] == drawn
    assert draw(student, step=4) != drawn
    assert draw(student, seed=6) != drawn


def test_training_goes_on_after_sampling(student):
    """What is computed while sampling must not be kept for the gradient, nor be unfit for one."""
    draw(student)
    student.model(torch.tensor([[5, 6, 7]])).logits.sum().backward()
    gradients = [p.grad for p in student.model.parameters() if p.requires_grad]
    assert all(gradient is not None for gradient in gradients)
    student.model.zero_grad()
