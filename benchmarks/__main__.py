"""Ratios measured in one run against the stock way: `python -m benchmarks [NAME ...]`.

A ratio of two times on one machine in one run says something on every machine; seconds do not. Each
bench does the same work twice, once as Tunix 0.1.7 does it out of the box and once as `nblib` does;
`peers` and `decoding` do it with other programs than Tunix. Where NBLIB_NEXT_TUNIX names a folder
with a newer Tunix, `sft` and `grpo` do it a third time, with that.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from nblib.hosts.host import where_am_i
from nblib.models.published import EMBEDDED
from nblib.runs import Run, finish_run, start_run
from nblib.tools.execution import in_the_kernels_environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Name -> its module; the function has the bench's name.
BENCHES = {
    "evaluation": "evaluation",
    "sft": "training",
    "grpo": "training",
    "peers": "peers",
    "tpu": "tpu",
    "device": "device",
    "decoding": "decoding",
}
_LEAVE_FILES = ("device",)  # in the run's folder, which they are given
_RATIO = "_ratio"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches that are named, all for none, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure speed against the stock way, as ratios."
    )
    names = ", ".join(BENCHES)
    parser.add_argument("benches", nargs="*", metavar="NAME", help=f"{names}; none: all")
    options = parser.parse_args(arguments)
    restarted = in_the_kernels_environment("benchmarks")
    if restarted is not None:
        return restarted
    try:
        run = run_benches(options.benches)
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    print(f"done: {run.path}")
    return 0


def run_benches(names: Sequence[str]) -> Run:
    """Run the benches named, all for none, and leave their figures in `runs/bench/latest`.

    Raises:
        ValueError: an unknown name.
    """
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        raise ValueError(f"bench {unknown[0]!r} is unknown: expected some of {', '.join(BENCHES)}")
    import jax

    started = time.monotonic()
    run = start_run("bench", {"benches": list(names) or list(BENCHES), "at": time.time()})
    figures: dict[str, float] = {}
    for name in names or BENCHES:
        bench = getattr(import_module(f"benchmarks.{BENCHES[name]}"), name)
        found = bench(run.path) if name in _LEAVE_FILES else bench()
        figures |= found
        print(*(f"{key:40} {value:.3f}" for key, value in found.items()), sep="\n", flush=True)
    result = {
        "notebook": "bench",
        "task": "gsm8k",
        "profile": jax.default_backend(),
        "seed": 0,
        "wall_s": time.monotonic() - started,
        "model": EMBEDDED,
        "data": "builtin",
        "stages": {},
        **figures,
    }
    if any(name.endswith(_RATIO) for name in figures):
        from nblib.report.plots import figure_png

        devices = where_am_i().facts["devices"]
        plot = plot_ratios(figures, caption=f"{devices}; tpu: compiled for a v5e-8, not run")
        (run.path / "ratios.png").write_bytes(figure_png(plot))
    finish_run(run, result, metrics=())
    return run


def plot_ratios(figures: Mapping[str, float], *, caption: str) -> "Figure":
    """Bars of every ratio of a bench, with its value; at 1 both ways are alike.

    Args:
        figures: a bench's figures; those whose name ends in "_ratio" are drawn.
        caption: what was measured, where.

    Raises:
        ValueError: there is no ratio.
    """
    from nblib.report.plots import INK, QUIET, calm, new_figure

    ratios = {name: value for name, value in figures.items() if name.endswith(_RATIO)}
    if not ratios:
        raise ValueError(f"no figure ends in {_RATIO!r}: got {', '.join(figures) or 'none'}")
    figure = new_figure(
        8.0, 1.8 + 0.4 * len(ratios), caption, title="Against stock Tunix and peers"
    )
    axes = figure.subplots()
    names = [name.removesuffix(_RATIO).replace("_", " ") for name in ratios]
    bars = axes.barh(names, list(ratios.values()), color="#0072b2", edgecolor=INK)
    axes.bar_label(bars, fmt="%.2f", padding=3, color=INK, fontsize=9)
    axes.axvline(1.0, color=QUIET, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("ratio of ours to theirs (logarithmic)")
    axes.invert_yaxis()
    calm(axes, grid="x")
    return figure


if __name__ == "__main__":
    sys.exit(main())
