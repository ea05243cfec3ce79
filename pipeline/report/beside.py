"""The chapter of a run's page on the optional stages beside the chain."""

from typing import Final

import polars as pl

from pipeline.report.blocks import Block, Card, Cards, Plot, Plots, Remark, Section
from pipeline.report.charts import bars, scatter
from pipeline.report.shown import Shown, cut

_POINTS: Final = 1_000
_N_EXAMPLES: Final = 3


def beside(shown: Shown) -> Section:
    """Return what silencing neurons costs, and what the model proposed as questions, where these were asked for."""
    blocks: list[Block] = [*shown.missing("causal_check"), *shown.missing("proposed_questions")]
    plots = []
    if causal := shown.find("causal_check"):
        blocks.append(Remark(f"Do the leading neurons matter? {causal.manifest.notes['verdict']}"))
        points = causal.scan().select("drop_random", "drop_silenced", "id").head(_POINTS).collect()
        axes = ("drop with random neurons silenced (nats)", "drop with leading neurons silenced (nats)")
        told = "A point is a response. Above the line its leading neurons are worth more than random ones."
        if points.height:
            plots.append(Plot("causal", "What silencing neurons costs", scatter(points, *axes), told))
    if proposals := shown.find("proposed_questions"):
        states = {state.replace("_", " "): n for state, n in proposals.manifest.notes["states"].items()}
        plots.append(Plot("proposals", "Questions that the model proposed", bars(states, "proposals")))
        first = proposals.scan().filter(pl.col("state") == "accepted").head(_N_EXAMPLES).collect()
        cards = [
            Card(cut(row["question"]), [f"vote {cut(row['pseudo_answer'])} ({row['vote_share']:.0%})"])
            for row in first.iter_rows(named=True)
        ]
        blocks += [Cards("Accepted proposals", cards)] if cards else []
    lead = "Stages that are asked for by name: the causal check of the neurons, and questions for a next pool."
    return Section("beside", "Beside the chain", lead, [*blocks, *([Plots(plots)] if plots else [])])
