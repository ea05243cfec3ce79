"""The chunked divergence against its formula, the head against models' own logits, and what stands at once."""

import math

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

import training.divergence
from pipeline.errors import TrainingError
from training.divergence import apply_head, check_head, last_hidden_states, sum_divergence

ALPHA = {"reverse_kl": 1.0, "forward_kl": 0.0, "jsd": 0.5}
D, V = 16, 50
SHAPE = {
    "hidden_size": D, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8,
    "num_key_value_heads": 1, "vocab_size": V, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.3,
}  # fmt: skip
GPT2 = {"n_embd": D, "n_layer": 2, "n_head": 2}
HEADS = {
    "qwen3": {"tie_word_embeddings": True},
    "llama": {"tie_word_embeddings": False},
    "gemma2": {"final_logit_softcapping": 3.0},
    "nanochat": {"final_logit_softcapping": 3.0},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 4.0},
    "falcon_h1": {
        "lm_head_multiplier": 0.5, "mamba_d_ssm": D, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 8
    },
    "granitemoehybrid": {
        "num_local_experts": 0, "shared_intermediate_size": 32, "layer_types": ["attention"] * 2, "mamba_n_heads": 2
    },
    "gpt2": GPT2,
    "gptj": {**GPT2, "rotary_dim": 4},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": D},
    "phi": {},
}  # fmt: skip


def build(family, **settings):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SHAPE, **settings})).eval()


def by_formula(student, teacher, name):
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    m = torch.logaddexp(p, q) - math.log(2)
    kl = lambda a, b: (a.exp() * (a - b)).sum()  # noqa: E731
    return {"reverse_kl": kl(p, q), "forward_kl": kl(q, p), "jsd": (kl(p, m) + kl(q, m)) / 2}[name]


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("name", ALPHA)
def test_value_and_gradient_are_the_formula_s_whatever_the_chunk(monkeypatch, name, chunk):
    monkeypatch.setattr(training.divergence, "CHUNK_TOKENS", chunk)
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 30, D, generator=generator)
    weight = torch.randn(V, D, generator=generator)
    student.requires_grad_()
    head = lambda hidden: 5 * (hidden @ weight.T / 5).tanh()  # noqa: E731  # a capped one
    expected = by_formula(head(student), head(teacher), name)
    (gradient,) = torch.autograd.grad(3 * expected, student)
    own = sum_divergence(student, teacher, head, ALPHA[name])
    (own_gradient,) = torch.autograd.grad(3 * own, student)
    assert float(own.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert torch.allclose(own_gradient, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def naive(student, teacher, name, k):
    """The divergence of one token after another in float64, of the student's k likeliest tokens and all others."""
    total = 0
    for s, t in zip(student.double(), teacher.double(), strict=True):
        p, q = s.log_softmax(-1), t.log_softmax(-1)
        if k and k < len(p):
            likeliest = p.topk(k).indices
            others = torch.ones_like(p, dtype=torch.bool)
            others[likeliest] = False
            p, q = (torch.cat([side[likeliest], side[others].logsumexp(-1)[None]]) for side in (p, q))
        total = total + by_formula(p, q, name)
    return total


@pytest.mark.parametrize("k", [None, 1, 5, V - 1, V, 10 * V])
@pytest.mark.parametrize("name", ALPHA)
def test_top_k_with_a_tail_is_the_naive_computation_in_float64_gradient_included(name, k):
    generator = torch.Generator().manual_seed(2)
    student, teacher = 3 * torch.randn(2, 20, V, generator=generator)
    student.requires_grad_()
    (expected_gradient,) = torch.autograd.grad(expected := naive(student, teacher, name, k), student)
    own = sum_divergence(student, teacher, lambda logits: logits, ALPHA[name], k)
    (gradient,) = torch.autograd.grad(own, student)
    assert float(own.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert torch.allclose(gradient, expected_gradient.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ALPHA)
def test_fewer_tokens_told_apart_never_diverge_more(name):
    generator = torch.Generator().manual_seed(3)
    student, teacher = 3 * torch.randn(2, 20, V, generator=generator)
    found = [float(sum_divergence(student, teacher, lambda x: x, ALPHA[name], k)) for k in (1, 2, 10, 30, V)]
    assert found == sorted(found)


@pytest.mark.parametrize("sure", [80.0, 1_000.0])
@pytest.mark.parametrize("k", [None, 1, 4, 40, V])
@pytest.mark.parametrize("name", ALPHA)
def test_masked_and_extreme_logits_are_the_naive_computation_s_without_the_masked_ones(name, k, sure):
    generator = torch.Generator().manual_seed(4)
    student, teacher = torch.randn(2, 6, V, generator=generator)
    student[:, 40:] = teacher[:, 40:] = -torch.inf  # a padded vocabulary
    student[0, 0], teacher[0, 0] = sure, sure - 5  # sure of the same token
    student[1, 1], teacher[1, 2] = sure, sure  # of different ones
    student[2, 3], teacher[3, 3] = sure, sure  # one alone
    student.requires_grad_()
    expected = naive(student[:, :40], teacher[:, :40], name, k)
    (expected_gradient,) = torch.autograd.grad(expected, student)
    own = sum_divergence(student, teacher, lambda logits: logits, ALPHA[name], k)
    (gradient,) = torch.autograd.grad(own, student)
    assert float(own.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert torch.allclose(gradient, expected_gradient.float(), rtol=1e-3, atol=1e-4)
    assert (gradient[:, 40:] == 0).all()


def test_trl_has_no_number_for_masked_tokens():
    """What ``_log_probs`` is for: it can go when TRL's formula takes the limit."""
    masked = torch.tensor([[0.0, -torch.inf]]).log_softmax(-1)
    assert training.divergence.compute_divergence(masked, masked, 1.0).isnan().all()


@pytest.mark.parametrize("family", HEADS)
def test_logits_of_hidden_states_are_the_model_s_own(family):
    """Scales, caps and biases stand in no one place; the same computation gives the same bits."""
    model = build(family, **HEADS[family])
    ids = torch.randint(3, V, (2, 7), generator=torch.Generator().manual_seed(0))
    attention = torch.ones_like(ids)
    attention[0, :2] = 0
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
        hidden = last_hidden_states(model, ids, attention)
        assert torch.equal(apply_head(model, hidden.flatten(0, 1)).view_as(logits), logits)
        assert torch.equal(last_hidden_states(model, ids, attention), hidden)  # nothing is left of the head's detour
    check_head(model)


def test_a_model_that_makes_its_logits_another_way_is_refused():
    class Reranked(LlamaForCausalLM):
        def forward(self, input_ids=None, **others):
            output = super().forward(input_ids, **others)
            output.logits = output.logits + (0 if input_ids is None else 1)
            return output

    with pytest.raises(TrainingError, match="Reranked does not make its logits"):
        check_head(Reranked(AutoConfig.for_model("llama", **SHAPE)))


class LivingLogits(TorchDispatchMode):
    """Counts the values of tensors over the vocabulary that stand at the same time."""

    def __init__(self):
        super().__init__()
        self.peak, self._living = 0, {}

    def __torch_dispatch__(self, function, _types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 and tensor.shape[-1] == V:
                storage = tensor.untyped_storage()
                self._living[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes() // 4)
        self._living = {key: (ref, size) for key, (ref, size) in self._living.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self._living.values()))
        return result


@pytest.mark.parametrize("k", [None, 5])
@pytest.mark.parametrize(("name", "copies"), [("reverse_kl", 9), ("forward_kl", 9), ("jsd", 16)])
def test_no_more_than_a_chunk_s_logits_ever_stand(monkeypatch, name, copies, k):
    monkeypatch.setattr(training.divergence, "CHUNK_TOKENS", 8)
    model = build("qwen3").requires_grad_(False)
    peaks = {}
    for n_tokens in (8, 80):
        student, teacher = torch.randn(2, n_tokens, D, generator=torch.Generator().manual_seed(n_tokens))
        student.requires_grad_()
        with LivingLogits() as logits:
            sum_divergence(student, teacher, lambda hidden: apply_head(model, hidden), ALPHA[name], k).backward()
        peaks[n_tokens] = logits.peak
    assert 0 < peaks[80] == peaks[8] <= copies * 8 * V
