"""Make the embedded reference model: tokenizer and a small Qwen3, trained from scratch on the world.

Everything follows from two seeds (world, training); on one machine the same seeds give the same weights.
"""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from pipeline.prompts import render_demonstrations, render_question, render_teacher_prompt
from pipeline.reference.documents import single_document, worked_example_document
from pipeline.reference.world import Question, World
from pipeline.section import Section

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class ReferenceModelConfig(Section):
    """Shape and training of the reference model."""

    seed: int = 0
    """Seed of initial weights and of the order of pretraining documents."""
    vocab_size: int = 1024
    """Entries of the byte-level BPE tokenizer."""
    n_layers: int = 4
    """Transformer blocks."""
    d_model: int = 128
    """Width of the residual stream."""
    d_mlp: int = 512
    """MLP neurons per layer."""
    n_heads: int = 4
    """Attention heads."""
    steps: int = 600
    """Optimizer steps."""
    n_example_documents: int = 16
    """Documents with worked examples per step."""
    n_single_documents: int = 64
    """Documents of one question per step."""
    matrix_rate: float = 5e-3
    """Peak rate of the blocks' matrices; the schedule is 5 % linear warm-up and cosine decay to a twentieth."""
    learning_rate: float = 3e-3
    """Peak rate of all other weights, on the same schedule."""


def train_tokenizer(world: World, config: ReferenceModelConfig) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, with chat template, on documents of the world."""
    rng = random.Random(f"tokenizer-{config.seed}")
    texts = []
    for _ in range(4000):
        for question in worked_example_document(world, rng, 2) + single_document(world, rng):
            texts.append(f"Example\n{render_question(question.question, question.options)}")
            texts.append(f"Response: {question.response}\n\nNow the question\n")
            texts.append(question.response)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            special_tokens=[PAD, END, USER, ASSISTANT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, padding_side="left")
    fast.chat_template = CHAT_TEMPLATE
    fast.model_max_length = 1024
    return fast


def build_model(tokenizer: PreTrainedTokenizerFast, config: ReferenceModelConfig) -> Qwen3ForCausalLM:
    """Return the untrained model."""
    torch.manual_seed(config.seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.d_model,
            intermediate_size=config.d_mlp,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_heads,
            head_dim=config.d_model // config.n_heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def render_document(questions: list[Question]) -> tuple[str, list[tuple[int, int]]]:
    """Return a document's text and the character spans of its responses, on which the loss is taken."""
    *examples, asked = questions
    pairs = [(render_question(q.question, q.options), q.response) for q in examples]
    context = render_demonstrations(pairs)
    text = f"{USER}{render_teacher_prompt(context, render_question(asked.question, asked.options))}{END}{ASSISTANT}"
    spans, cursor = [], 0
    for _, response in pairs:
        start = text.index(f"Response: {response}", cursor) + len("Response:")
        cursor = start + 1 + len(response)
        spans.append((start, cursor))
    spans.append((len(text), len(text) + len(asked.response) + len(END)))
    return f"{text}{asked.response}{END}", spans


def collate(documents: list[list[Question]], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Return right-padded token ids ``[B, S]`` and the mask ``[B, S]`` of tokens that carry loss."""
    rendered = [render_document(document) for document in documents]
    encoded = tokenizer(
        [text for text, _ in rendered],
        return_offsets_mapping=True,
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    offsets = encoded["offset_mapping"]
    mask = torch.zeros(encoded["input_ids"].shape, dtype=torch.bool)
    for row, (_, spans) in enumerate(rendered):
        for start, stop in spans:
            mask[row] |= (offsets[row, :, 0] >= start) & (offsets[row, :, 1] <= stop) & (offsets[row, :, 1] > 0)
    return encoded["input_ids"], mask


def response_loss(model: Qwen3ForCausalLM, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return the summed cross-entropy of the masked tokens and how many there are.

    No attention mask is passed: padding is on the right, where causal attention keeps it from earlier tokens.
    """
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    kept = mask[:, 1:]
    logits = model.lm_head(hidden[kept])
    loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:][kept], reduction="sum")
    return loss, int(kept.sum())


def make_optimizers(model: Qwen3ForCausalLM, config: ReferenceModelConfig) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices within the blocks and AdamW for embedding and norms.

    With Muon (Jordan, 2024) single questions cost 0.08 nats a response token after 350 steps, with AdamW alone 0.27.
    """
    inner = {name for name, weight in model.named_parameters() if ".layers." in name and weight.ndim == 2}
    matrices = [weight for name, weight in model.named_parameters() if name in inner]
    others = [weight for name, weight in model.named_parameters() if name not in inner]
    return [
        torch.optim.Muon(matrices, lr=config.matrix_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def train(world: World, config: ReferenceModelConfig, directory: Path) -> None:
    """Train tokenizer and model on the world's documents and save both in ``directory``."""
    tokenizer = train_tokenizer(world, config)
    model = build_model(tokenizer, config)
    optimizers = make_optimizers(model, config)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=optimizer.param_groups[0]["lr"],
            total_steps=config.steps,
            pct_start=0.05,
            div_factor=20,
            final_div_factor=1,
            cycle_momentum=False,
        )
        for optimizer in optimizers
    ]
    rng = random.Random(f"documents-{config.seed}")
    progress = tqdm(range(config.steps), desc="pretraining", mininterval=5)
    for step in progress:
        n_examples = rng.randint(1, 4)  # one length per batch, so that little is padded
        batches = (
            [worked_example_document(world, rng, n_examples) for _ in range(config.n_example_documents)],
            [single_document(world, rng) for _ in range(config.n_single_documents)],
        )
        losses = []
        for documents in batches:
            loss, count = response_loss(model, *collate(documents, tokenizer))
            (loss / count).backward()
            losses.append(float(loss.detach()) / count)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        if step % 50 == 0:
            progress.set_postfix(examples=f"{losses[0]:.3f}", single=f"{losses[1]:.3f}")
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
