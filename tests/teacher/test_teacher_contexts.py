import random
from dataclasses import fields, replace
from typing import get_args

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipeline.errors import ConfigError
from pipeline.models import encode_chat
from pipeline.prompts import render_demonstrations, render_question, render_teacher_prompt
from pipeline.retrieval.sets import jaccard
from pipeline.rollouts.config import Prompting
from pipeline.table import conform
from pipeline.teacher import context
from pipeline.teacher.builders import BUILDERS
from pipeline.teacher.config import BuilderName, TeacherContextsConfig
from pipeline.teacher.questions import Questions
from pipeline.teacher.schemas import TEACHER_CONTEXTS
from pipeline.teacher.uniform import _draw_all

PLAIN = Prompting(instruction="", open_instruction="")
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"


@pytest.fixture(scope="module")
def tokenizer():
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ["<|end|>", "<|user|>", "<|assistant|>"], pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator([], trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet))
    fast = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")
    fast.chat_template = TEMPLATE
    return fast


def groups_of(entries):
    """Return the group of each id: the smallest one of those that ask the same, up to case."""
    stems = {key: entry[0].casefold() for key, entry in entries.items()}
    return {key: min(other for other in stems if stems[other] == stem) for key, stem in stems.items()}


def question_tables(entries):
    """Build Questions from {id: (question, options, [neurons per rollout], representative or None)}.

    Questions that differ in case are near-duplicates. The stem's neurons are those of the first rollout, and
    its state says which.
    """
    pool, labels, rollouts, scores, stems, states = [], [], [], [], [], []
    groups = groups_of(entries)
    for key, (question, options, neuron_sets, representative) in entries.items():
        order, prompt = list(range(len(options))), render_question(question, options)
        pool.append({"id": key, "question": question, "options": options, "permutation": order, "group": groups[key]})
        answer = None if representative is None else f"answer {len(neuron_sets[representative]) % 2}"
        labels.append({"id": key, "representative": representative, "pseudo_answer": answer})
        for sample, neurons in enumerate(neuron_sets):
            response = f"because {key}-{sample}. Answer: A"
            rollouts.append({"id": key, "sample": sample, "prompt": prompt, "response": response})
            scores.append({"id": key, "sample": sample, "neurons": sorted(neurons)})
        stems.append({"id": key, "neurons": sorted(neuron_sets[0])})
        states.append({"id": key, "state": [float(n in neuron_sets[0]) for n in range(60)]})
    ints, strings, sample = pl.List(pl.Int32), pl.List(pl.String), {"sample": pl.Int32}
    texts = {"id": pl.String, "question": pl.String, "options": strings, "permutation": ints, "group": pl.String}
    sets = {"id": pl.String, "neurons": ints}
    per_rollout = pl.LazyFrame(scores, schema=sets | sample)
    return Questions(
        pl.DataFrame(pool, schema=texts),
        pl.DataFrame(labels, schema={"id": pl.String, "representative": pl.Int32, "pseudo_answer": pl.String}),
        pl.LazyFrame(rollouts, schema={"id": pl.String, "prompt": pl.String, "response": pl.String} | sample),
        per_rollout,
        pl.LazyFrame(stems, schema=sets),
        per_rollout,
        pl.LazyFrame(states, schema={"id": pl.String, "state": pl.List(pl.Float32)}),
    )


def random_entries(n, seed=0, n_neurons=60):
    """Draw questions whose wordings repeat now and then, up to case, and whose majority is sometimes missing."""
    rng = random.Random(seed)
    entries = {}
    for number in range(n):
        stem = f"What is {number % (2 * n // 3)}?"
        sets = [set(rng.sample(range(n_neurons), rng.randint(1, 12))) for _ in range(3)]
        representative = None if rng.random() < 0.2 else rng.randrange(3)
        entries[f"q{number:03}"] = (stem.upper() if number % 2 else stem, ["yes", "no"], sets, representative)
    return entries


def reverse_rows(questions):
    return Questions(*(getattr(questions, table.name).reverse() for table in fields(Questions)))


def assemble_contexts(targets, sources, tokenizer, config, prompting=PLAIN, **chosen):
    return context.assemble_contexts(targets, sources, tokenizer, config, prompting, **chosen)


def row(contexts, key):
    return contexts.row(by_predicate=pl.col("id") == key, named=True)


ENTRIES = random_entries(60)
GROUPS = groups_of(ENTRIES)
POOL = question_tables(ENTRIES)
LARGE = TeacherContextsConfig(builder="neuron_overlap", max_teacher_tokens=100_000)


def test_neuron_overlap_shows_the_nearest_last_with_prompt_and_whole_rollout(tokenizer):
    pool = question_tables(
        {
            "t": ("Target?", [], [{1, 2, 3, 4}], 0),
            "far": ("Far?", [], [{4, 9, 10}], 0),
            "near": ("Near?", [], [{7}, {1, 2, 3}], 1),
            "tie": ("Tied?", [], [{1, 2, 3, 4}], None),
            "mid": ("Mid?", [], [{1, 2, 8}], 0),
            "alien": ("Alien?", [], [{50}], 0),
        }
    )
    got = row(assemble_contexts(pool.only(["t"]), pool, tokenizer, LARGE), "t")
    assert got["demonstration_ids"] == ["far", "mid", "near"]
    assert got["similarities"] == pytest.approx([1 / 6, 2 / 5, 3 / 4])
    assert got["privileged_context"] == render_demonstrations(
        [
            (f"{name.title()}?", f"because {name}-{sample}. Answer: A")
            for name, sample in [("far", 0), ("mid", 0), ("near", 1)]
        ]
    )
    none_overlaps = row(assemble_contexts(pool.only(["alien"]), pool, tokenizer, LARGE), "alien")
    assert none_overlaps["demonstration_ids"] == []
    assert none_overlaps["privileged_context"] == ""


@pytest.mark.parametrize("question_set", ["representative", "union"])
def test_neuron_overlap_equals_brute_force(tokenizer, question_set):
    def neurons(entry):
        _, _, sets, representative = entry
        shown = (
            sets[representative]
            if question_set == "representative" and representative is not None
            else set.union(*sets)
        )
        return pl.Series(sorted(shown)).to_numpy()

    contexts = assemble_contexts(POOL, POOL, tokenizer, LARGE, question_set=question_set)
    for got in contexts.to_dicts():
        target = ENTRIES[got["id"]]
        taken, expected = {GROUPS[got["id"]]}, []
        ranked = sorted((-jaccard(neurons(target), neurons(e)), key) for key, e in ENTRIES.items() if e[3] is not None)
        for negative, key in ranked:
            if negative < 0 and len(expected) < 3 and GROUPS[key] not in taken:
                taken.add(GROUPS[key])
                expected.append(key)
        assert got["demonstration_ids"] == expected[::-1]


def test_neighbours_beyond_a_cluster_of_copies_are_found(tokenizer):
    copies = {f"c{i:02}": ("Copy?", [], [{1, 2}], 0) for i in range(30)}
    others = {"x": ("X?", [], [{1, 5}], 0), "y": ("Y?", [], [{1, 5, 6}], 0)}
    pool = question_tables({**copies, **others})
    got = row(assemble_contexts(pool.only(["c00"]), pool, tokenizer, LARGE), "c00")
    assert got["demonstration_ids"] == ["y", "x"]


@pytest.mark.parametrize("builder", sorted(set(BUILDERS) - {"pseudo_solution"}))
@pytest.mark.parametrize(("n_demonstrations", "balance"), [(1, False), (3, False), (3, True), (50, False)])
def test_never_the_question_nor_near_duplicates_nor_questions_without_majority(
    tokenizer, builder, n_demonstrations, balance
):
    config = LARGE.model_copy(
        update={"builder": builder, "n_demonstrations": n_demonstrations, "balance_answers": balance}
    )
    for got in assemble_contexts(POOL, POOL, tokenizer, config).to_dicts():
        shown = got["demonstration_ids"]
        groups = [GROUPS[key] for key in [got["id"], *shown]]
        assert got["id"] not in shown
        assert len(set(groups)) == len(groups)
        assert all(ENTRIES[key][3] is not None for key in shown)
        assert len(shown) <= n_demonstrations


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("builder", BUILDERS)
def test_contexts_conform_and_depend_neither_on_row_order_nor_on_other_targets(tokenizer, builder, balance):
    config = TeacherContextsConfig(builder=builder, balance_answers=balance, max_teacher_tokens=250)
    contexts = assemble_contexts(POOL, POOL, tokenizer, config)
    conform(contexts, TEACHER_CONTEXTS, builder)
    assert contexts["id"].to_list() == sorted(ENTRIES)
    assert contexts.equals(assemble_contexts(reverse_rows(POOL), reverse_rows(POOL), tokenizer, config))
    some = ["q003", "q021", "q040"]
    assert assemble_contexts(POOL.only(some), POOL, tokenizer, config).equals(
        contexts.filter(pl.col("id").is_in(some)), null_equal=True
    )


def test_held_out_questions_get_contexts_from_the_pool_by_neurons_of_their_own(tokenizer):
    held_out = question_tables({"h": ("Held out?", [], [{1, 2}, {3, 400}], 1), "q047": ENTRIES["q047"]})
    held_out = replace(held_out, pool=held_out.pool.drop("group"))  # held-out questions have none
    contexts = assemble_contexts(held_out, POOL, tokenizer, LARGE)
    own, other = row(contexts, "q047")["demonstration_ids"], row(contexts, "h")["demonstration_ids"]
    assert len(other) > 0
    assert all(3 in ENTRIES[key][2][ENTRIES[key][3]] for key in other)
    assert len(own) > 0
    assert "q047" not in own  # the question itself, though its group in the pool is q007's


def test_pseudo_solution_shows_the_questions_own_majority_rollout(tokenizer):
    contexts = assemble_contexts(POOL, POOL, tokenizer, TeacherContextsConfig(builder="pseudo_solution"))
    for got in contexts.to_dicts():
        question, options, _, representative = ENTRIES[got["id"]]
        own = [(render_question(question, options), f"because {got['id']}-{representative}. Answer: A")]
        assert got["privileged_context"] == render_demonstrations(own if representative is not None else [])


def test_none_leaves_every_context_empty(tokenizer):
    contexts = assemble_contexts(POOL, POOL, tokenizer, TeacherContextsConfig(builder="none"))
    assert (contexts["privileged_context"] == "").all()
    assert (contexts["n_dropped"] == 0).all()


def test_random_contexts_differ_by_seed_and_spread_over_the_pool(tokenizer):
    def shown(seed):
        config = TeacherContextsConfig(builder="random", seed=seed, max_teacher_tokens=100_000)
        return assemble_contexts(POOL, POOL, tokenizer, config)["demonstration_ids"].to_list()

    assert shown(0) == shown(0) != shown(1)
    assert len({key for ids in shown(0) for key in ids}) > 30


@given(st.integers(0, 40), st.integers())
def test_random_draws_are_a_permutation(count, seed):
    assert sorted(_draw_all(count, random.Random(seed))) == list(range(count))


@settings(max_examples=40, deadline=None)
@given(budget=st.integers(1, 400), builder=st.sampled_from(sorted(BUILDERS)), k=st.integers(1, 5))
def test_budget_drops_whole_demonstrations_least_similar_first(tokenizer, budget, builder, k):
    config = TeacherContextsConfig(builder=builder, n_demonstrations=k, max_teacher_tokens=budget)
    roomy = config.model_copy(update={"max_teacher_tokens": 100_000})
    targets = POOL.only(["q001", "q010", "q044"])
    contexts, whole = (assemble_contexts(targets, POOL, tokenizer, c) for c in (config, roomy))
    responses = {(r["id"], r["sample"]): r["response"] for r in POOL.rollouts.collect().to_dicts()}
    prompts = {key: render_question(question, options) for key, (question, options, *_) in ENTRIES.items()}

    def rendered(ids):
        return render_demonstrations([(prompts[key], responses[key, ENTRIES[key][3]]) for key in ids])

    def n_tokens(context, key):
        return len(encode_chat(tokenizer, render_teacher_prompt(context, prompts[key])))

    for got, all_shown in zip(contexts.to_dicts(), whole["demonstration_ids"].to_list(), strict=True):
        shown, key = got["demonstration_ids"], got["id"]
        assert got["n_dropped"] == len(all_shown) - len(shown)
        assert shown == all_shown[got["n_dropped"] :]
        assert got["prompt"] == prompts[key]
        assert got["privileged_context"] == rendered(shown)
        assert got["n_teacher_tokens"] == n_tokens(got["privileged_context"], key)
        assert not shown or got["n_teacher_tokens"] <= budget
        if got["n_dropped"]:
            assert n_tokens(rendered(all_shown[got["n_dropped"] - 1 :]), key) > budget


def test_the_students_prompt_is_worded_as_its_rollouts_with_the_options_in_the_pools_order(tokenizer):
    pool = question_tables({"t": ("T?", ["x", "y", "z"], [{1}], 0), "d": ("D?", [], [{1}], 0)})
    order = pl.Series([[2, 0, 1], []], dtype=pl.List(pl.Int32))
    pool = replace(pool, pool=pool.pool.with_columns(permutation=order))
    prompting = Prompting(instruction="Go.", open_instruction="Say.", permute_options=True)
    contexts = assemble_contexts(pool, pool, tokenizer, LARGE, prompting)
    assert contexts["prompt"].to_list() == ["D?\n\nSay.", "T?\nA. z\nB. x\nC. y\n\nGo."]
    assert row(contexts, "t")["privileged_context"] == render_demonstrations([("D?", "because d-0. Answer: A")])


def test_template_syntax_in_questions_and_responses_stays_text(tokenizer):
    hostile = "{prompt} {privileged_context} {0} {{ messages }} {% if x %} {}"
    pool = question_tables({"t": (f"T {hostile}", [hostile], [{1}], 0), "d": (f"D {hostile}", [hostile], [{1}], 0)})
    rollouts = pool.rollouts.with_columns(response=pl.lit(f"R {hostile}"))
    pool = replace(pool, rollouts=rollouts)
    got = row(assemble_contexts(pool, pool, tokenizer, LARGE), "t")
    message = render_teacher_prompt(got["privileged_context"], got["prompt"])
    assert message == (
        f"Example\nD {hostile}\nA. {hostile}\nResponse: R {hostile}\n\nNow the question\nT {hostile}\nA. {hostile}"
    )
    assert tokenizer.decode(encode_chat(tokenizer, message)) == f"<|user|>{message}<|end|><|assistant|>"


def test_an_unknown_builder_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="did you mean 'neuron_overlap'"):
        assemble_contexts(POOL, POOL, tokenizer, LARGE.model_copy(update={"builder": "neuron_overlaps"}))


def test_the_configuration_knows_every_builder_by_name():
    assert set(BUILDERS) <= set(get_args(BuilderName))
