"""The utilization index counts a neuron once, however many rows and tables hold it."""

import polars as pl

from pipeline.neurons.mui import model_utilization


def table(*sets):
    return pl.DataFrame({"neurons": [sorted(s) for s in sets]}, schema={"neurons": pl.List(pl.Int32)})


def test_each_neuron_counts_once():
    assert model_utilization([table({0, 1, 2}, {2, 3}), table(set()), table({3, 0})], n_neurons=16) == 4 / 16
    assert model_utilization([table(set())], n_neurons=16) == 0
    assert model_utilization([], n_neurons=16) == 0
