import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.retrieval.sets import NeuronSets, jaccard

SETS = st.frozensets(st.integers(0, 12), max_size=8)


def frame(rows):
    kinds = {"id": pl.String, "neurons": pl.List(pl.Int32)}
    return pl.DataFrame({"id": [r[0] for r in rows], "neurons": [sorted(r[1]) for r in rows]}, schema=kinds)


def members(sets):
    return {
        key: sets.neurons[a:b].tolist() for key, a, b in zip(sets.ids, sets.offsets, sets.offsets[1:], strict=False)
    }


@given(SETS, SETS)
def test_jaccard_is_set_arithmetic(a, b):
    expected = len(a & b) / len(a | b) if a | b else 0.0
    assert jaccard(np.array(sorted(a), dtype=int), np.array(sorted(b), dtype=int)) == expected


@given(st.lists(st.tuples(st.sampled_from("abcd"), SETS), max_size=8), st.booleans())
def test_a_questions_set_is_the_union_of_its_rows(rows, lazy):
    ids = ["c", "a", "nowhere", "b"]
    sets = NeuronSets.of(frame(rows).lazy() if lazy else frame(rows), ids)
    unions = {key: sorted(frozenset().union(*(s for other, s in rows if other == key))) for key in sorted(ids)}
    assert members(sets) == unions
    assert list(sets.ids) == sorted(ids)
    assert (sets.offsets.dtype, sets.neurons.dtype) == (np.int64, np.int32)


@given(st.lists(SETS, max_size=6), st.data())
def test_parts_hold_the_same_sets(neurons, data):
    ids = [f"q{i}" for i in range(len(neurons))]
    sets = NeuronSets.of(frame(list(zip(ids, neurons, strict=True))), ids)
    start, stop = data.draw(st.integers(0, len(ids))), data.draw(st.integers(0, 9))
    rows = sorted(data.draw(st.sets(st.integers(0, len(ids) - 1)))) if ids else []
    expected = [(key, sorted(s)) for key, s in zip(ids, neurons, strict=True)]
    assert list(members(sets.rows(start, max(start, stop))).items()) == expected[start : max(start, stop)]
    assert list(members(sets.take(np.array(rows, dtype=np.int64))).items()) == [expected[row] for row in rows]
