"""A cache with room holds what transformers' own does, whatever is appended and whichever rows leave."""

import pytest
import torch
from transformers import DynamicCache, Gemma3TextConfig

from pipeline.generation.cache import RoomyLayer, close_up, make_room

N_MORE = 6


def states(n_rows, n_tokens, seed):
    drawn = torch.Generator().manual_seed(seed)
    return [torch.randn(n_rows, 2, n_tokens, 4, generator=drawn) for _ in range(2)]


def caches(n_rows=5, n_tokens=7):
    own, reference = DynamicCache(), DynamicCache()
    for cache in (own, reference):
        cache.update(*states(n_rows, n_tokens, 0), 0)
    make_room(own, N_MORE)
    assert isinstance(own.layers[0], RoomyLayer)
    return own, reference


def assert_alike(own, reference):
    assert own.get_seq_length() == reference.get_seq_length()
    assert torch.equal(own.layers[0].keys, reference.layers[0].keys)
    assert torch.equal(own.layers[0].values, reference.layers[0].values)


@pytest.mark.parametrize("first", [[0, 1, 2, 3, 4], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [4, 1, 2], [2, 2]])
def test_it_holds_what_a_dynamic_cache_holds(first):
    own, reference = caches()
    rows = torch.tensor(first)
    for step in range(N_MORE):
        for cache in (own, reference):
            cache.reorder_cache(rows)
        assert_alike(own, reference)
        appended = [cache.update(*states(len(rows), 1, step + 1), 0) for cache in (own, reference)]
        assert all(torch.equal(*pair) for pair in zip(*appended, strict=True))
        assert_alike(own, reference)
        rows = close_up(torch.arange(len(rows)) != step % len(rows)) if len(rows) > 1 else torch.tensor([0])


def test_it_appends_without_a_row_having_left_first():
    own, reference = caches()
    for cache in (own, reference):
        cache.update(*states(5, 2, 1), 0)
    assert_alike(own, reference)


def test_appending_and_leaving_copy_no_row_that_stays():
    own, _ = caches()
    own.update(*states(5, 1, 1), 0)
    place, third = own.layers[0].keys.data_ptr(), own.layers[0].keys[2].data_ptr()
    own.reorder_cache(close_up(torch.tensor([True, False, True, True, True])))
    own.update(*states(4, 1, 2), 0)
    assert own.layers[0].keys.data_ptr() == place
    assert own.layers[0].keys[2].data_ptr() == third


def test_no_more_can_be_appended_than_there_is_room_for():
    own, _ = caches()
    own.update(*states(5, N_MORE, 1), 0)
    with pytest.raises(RuntimeError, match="exceeds dimension size"):
        own.update(*states(5, 1, 2), 0)


@pytest.mark.parametrize(
    ("stays", "rows"),
    [
        ([True, True, True], [0, 1, 2]),
        ([False, True, True], [2, 1]),
        ([True, False, False, True, False, True], [0, 3, 5]),
        ([False, False, True], [2]),
        ([True, True, False], [0, 1]),
        ([False, False], []),
    ],
)
def test_the_last_rows_take_the_places_of_those_that_leave(stays, rows):
    assert close_up(torch.tensor(stays)).tolist() == rows


def test_layers_that_forget_or_hold_nothing_stay_as_they_are():
    cache = DynamicCache(config=Gemma3TextConfig(num_hidden_layers=6, sliding_window=4))  # the last one keeps all
    kinds = [type(layer) for layer in cache.layers]
    cache.update(*states(2, 3, 0), 5)
    make_room(cache, 3)
    assert [type(layer) for layer in cache.layers[:5]] == kinds[:5]
    assert type(cache.layers[5]) is RoomyLayer
