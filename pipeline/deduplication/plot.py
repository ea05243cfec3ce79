"""What people see of the stage ``pool``."""

from matplotlib.figure import Figure

from pipeline.deduplication.statistics import family_sizes, fates_of
from pipeline.plots import figure_png
from pipeline.store.artifact import Artifact


def fates(artifact: Artifact) -> bytes:
    """Return where the raw questions went, and the sizes of the stem families by rank, as PNG."""
    pool, dropped = artifact.read("pool"), artifact.read("dropped")
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    found = fates_of(pool, dropped).reverse()
    bars = left.barh(found["fate"].to_list(), found["questions"].to_numpy(), color="#0072B2")
    left.bar_label(bars, padding=3)
    left.margins(x=0.2)
    left.set(title="questions of the raw pool", xlabel="questions")
    sizes = family_sizes(pool)["questions"].to_numpy()
    right.plot(range(1, len(sizes) + 1), sizes, color="#D55E00", marker=".")
    right.set(title=f"{len(sizes)} stem families", xlabel="rank", ylabel="questions", xscale="log", yscale="log")
    return figure_png(figure)
