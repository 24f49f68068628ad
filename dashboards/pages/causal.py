"""Causal: what experiments did to pictures, beside their controls."""

from functools import partial

import numpy as np
import streamlit as st

from interp.dashboard import choose, frame, pictures
from interp.dashboard.explain import explained
from interp.dashboard.panel import opening, panel
from interp.dashboard.pickers import pick, plain, put
from interp.figures import drawn, evaluation
from interp.figures import experiments as figures

frame.needed()

COMMAND = "interp disrupt --model demo --prompts prompts.txt --out cache/disrupt.zarr   # or dose, patch, lens, ..."
PATCH = ("column", "block", "what")


def arm_of(axes, **labels):
    """The arm with these labels."""
    matches = np.ones(axes.sizes["arm"], bool)
    for name, value in labels.items():
        matches &= axes[name].to_numpy() == value
    return int(np.flatnonzero(matches)[0]) if matches.any() else None


def beside(axes, arm, kinds, same):
    """One arm of each of these kinds that shares the labels `same` with an arm."""
    labels = {name: axes[name].to_numpy()[arm] for name in same}
    found = [arm_of(axes, kind=kind, **labels) for kind in kinds]
    return [place for place in dict.fromkeys(found) if place is not None and place != arm]


def disrupted(experiment, begin):
    """Effects with intervals, and pairs of pictures."""
    found = experiment.result("disruption")
    code = [*begin, 'found = experiment.result("disruption")', "interp.figures.experiments.disruption(found)"]
    panel("disruption", partial(figures.disruption, found), found, code)
    pairs(experiment, figures.CONTROLS, ("blocks",))


def dosed(experiment, begin):
    """Dose and response, and pairs of pictures."""
    found = experiment.result("dose")
    code = [*begin, 'found = experiment.result("dose")', "interp.figures.experiments.dose(found)"]
    panel("dose", partial(figures.dose, found), found, code)
    pairs(experiment, ("random", "lowest"), ("window", "blocks", "count"))


def collapsed(experiment, begin):
    """The largest channels of every block taken away, and pairs of pictures."""
    found = experiment.result("collapse")
    code = [*begin, 'found = experiment.result("collapse")', "interp.figures.evaluation.collapse(found)"]
    panel("collapse", partial(evaluation.collapse, found), found, code)
    pairs(experiment, ("random", "lowest"), ("k",))


def pairs(experiment, controls, same):
    """The original against one arm, and that arm's controls."""
    st.subheader("Before and after")
    row = choose.row(experiment)
    axes = experiment.axes
    arms = [str(arm) for arm in axes["arm"].to_numpy()]
    drawn_here = [name for name, done in zip(arms[1:], experiment.done[row, 1:], strict=True) if done]
    if not drawn_here:
        st.info("No arm is drawn for this prompt yet.")
        return
    with st.sidebar:
        arm = arms.index(pick(f"{experiment.kind}_arm", "After", drawn_here, where="this prompt"))
    pictures.compared("pair", experiment, row, 0, arm, controls=beside(axes, arm, controls, same))


def patched(experiment, begin):
    """The grid; a click shows a cell's pictures."""
    with st.sidebar:
        metrics = [name.removeprefix("patching_") for name in experiment.results if name.startswith("patching_")]
        metric = pick("metric", "Recovered in", sorted(metrics, reverse=True))
    name = f"patching_{metric}"
    found = experiment.result(name)
    code = [*begin, f"found = experiment.result({name!r})", "interp.figures.experiments.patch_grid(found)"]

    def go_to(column, block, what):
        """Set the pickers to the cell clicked."""
        for label, value in zip(PATCH, (str(column), int(block), str(what)), strict=True):
            put(f"patch_{label}", value)

    figure = partial(figures.patch_grid, found)
    panel("patch", figure, found, code, cells=lambda made: figures.patch_cells(made, found), clicked=go_to)
    st.caption("Click a cell for its pictures.")
    row = choose.row(experiment, "Pair")
    with st.sidebar:
        what = pick("patch_what", "Patched", [str(value) for value in found["what"].to_numpy()])
        block = pick("patch_block", "Block", found["block"].to_numpy().tolist(), slider=True)
        column = pick("patch_column", found.attrs["columns"].capitalize(), [str(value) for value in found["column"].to_numpy()])
    cell = found.sel(what=what, block=block, column=column)
    low, high = float(cell["recovered_low"]), float(cell["recovered_high"])
    st.subheader(f"{plain(what)} patched at block {block}, {plain(column)}")
    st.markdown(f"Recovered ({plain(metric)}): **{float(cell['recovered']):.3f}** [{low:.3f}, {high:.3f}] over all pairs.")
    axes = experiment.axes
    arm = arm_of(axes, what=what, block=block, column=column)
    if arm is not None:
        control = arm_of(axes, what="control", block=block, column=column)
        controls = [control] if control is not None and control != arm else []
        pictures.compared("pair", experiment, row, 0, arm, controls=controls, beside=[1])


def transported(experiment, begin):
    """How far pictures moved, and the strips."""
    with st.sidebar:
        metric = pick("metric", "Moved in", ["picture", "structure", "latents"])
    found = experiment.result("transport")
    code = [*begin, 'found = experiment.result("transport")', f"interp.figures.experiments.transport(found, {metric!r})"]
    panel("transport", partial(figures.transport, found, metric), found, code)
    row = choose.row(experiment, "Pair")
    axes = experiment.axes
    st.subheader("Strips: the target, more and more of the source, the source")
    for name in (str(value) for value in found["channels"].to_numpy()):
        arms = [0, *np.flatnonzero(axes["channels"].to_numpy() == name).tolist(), 1]
        images = [experiment.picture(row, arm) if experiment.done[row, arm] else None for arm in arms]
        names = [str(axes["arm"].to_numpy()[arm]) for arm in arms]
        st.caption(f"{plain(name)} channels")
        pictures.strip(images, names, width=120)
        pictures.strips_of(f"{name}:strip", experiment, [row], arms)
    with st.sidebar:
        arm = pick("transport_arm", "Slider shows", [str(value) for value in axes["arm"].to_numpy()[2:]])
    pictures.compared("pair", experiment, row, 0, arm_of(axes, arm=arm), beside=[1])


def swapped(experiment, begin):
    """What swapping each thing moves."""
    found = experiment.result("swap")
    code = [*begin, 'found = experiment.result("swap")', "interp.figures.experiments.swap(found)"]
    panel("swap", partial(figures.swap, found), found, code, height=560)
    st.caption("This experiment changes what enters a single step; it draws no pictures.")


def seen(experiment, begin):
    """The block lens: distances, and what a block would paint."""
    found = experiment.result("lens")
    with st.sidebar:
        measure = pick("measure", "Measure", [str(value) for value in found["measure"].to_numpy()])
    code = [*begin, 'found = experiment.result("lens")', f"interp.figures.drawn.lens(found, {measure!r})"]
    panel("lens", partial(drawn.lens, found, measure), found, code)
    row = choose.row(experiment)
    axes = experiment.axes
    with st.sidebar:
        kind = pick("lens_kind", "Kind", [str(value) for value in found["kind"].to_numpy()])
        block = pick("lens_block", "Block", found["block"].to_numpy().tolist(), slider=True)
        step = pick("lens_step", "Step", found["step"].to_numpy().tolist(), slider=True)
    arm = arm_of(axes, kind=kind, block=block, step=step)
    if arm is not None:
        pictures.compared("pair", experiment, row, 0, arm)


VIEWS = {
    "disrupt": disrupted,
    "dose": dosed,
    "patch": patched,
    "transport": transported,
    "swap": swapped,
    "lens": seen,
    "collapse": collapsed,
}
RESULT = {"disrupt": "disruption", "patch": "patching_picture"}

st.title("Causal")
experiment = choose.experiment(list(VIEWS), "Experiment", COMMAND)
kind = experiment.kind
st.caption(plain(f"{experiment.path.name}: {kind}, {experiment.facts()['rows']}, {experiment.facts()['pictures']}"))
with explained():
    if RESULT.get(kind, kind) not in experiment.results:
        st.info("This experiment has no result yet: it is still running, or was stopped. The same command goes on with it.")
    else:
        VIEWS[kind](experiment, opening(experiment.path, experiment=True))
