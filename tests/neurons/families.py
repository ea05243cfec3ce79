"""Random models of every supported family, three small layers each."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

D, M, L, V = 16, 64, 3, 50
SHAPE = {
    "hidden_size": D, "intermediate_size": M, "num_hidden_layers": L, "num_attention_heads": 2, "head_dim": 8,
    "num_key_value_heads": 1, "vocab_size": V, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {"n_embd": D, "n_inner": M, "n_layer": L, "n_head": 2}
GATED = {
    "llama": {},
    "mistral": {},
    "ministral3": {},
    "qwen2": {},
    "qwen3": {},
    "qwen3_5_text": {"layer_types": ["linear_attention", "linear_attention", "full_attention"]},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "phi3": {},
    "smollm3": {},
    "stablelm": {},
    "granite": {},
    "granitemoehybrid": {
        "num_local_experts": 0,
        "shared_intermediate_size": M,
        "layer_types": ["attention"] * L,
        "mamba_n_heads": 2,
    },
    "cohere": {},
    "cohere2": {},
    "glm": {},
    "glm4": {},
    "ernie4_5": {},
    "exaone4": {},
    "falcon_h1": {"mamba_d_ssm": D, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 8},
    "helium": {},
    "hunyuan_v1_dense": {},
    "olmo_hybrid": {},
    "seed_oss": {},
}
UNGATED = {
    "phi": {},
    "gpt_neox": {},
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "gpt_neo": {"attention_types": [[["global"], L]], "num_heads": 2, "num_layers": L},
    "gptj": {**GPT2, "rotary_dim": 4},
    "codegen": {**GPT2, "num_attention_heads": 4, "rotary_dim": 2},
    "opt": {"ffn_dim": M, "word_embed_proj_dim": D},
    "bloom": {},
    "falcon": {"head_dim": None},
    "mpt": {},
    "starcoder2": {},
    "nemotron": {},
    "arcee": {},
    "persimmon": {},
    "nanochat": {},
}
FAMILIES = GATED | UNGATED


def build(family, **settings):
    torch.manual_seed(0)
    known = {key: value for key, value in {**SHAPE, **settings}.items() if value is not None}
    config = AutoConfig.for_model(family, **known)
    return AutoModelForCausalLM.from_config(config).eval()
