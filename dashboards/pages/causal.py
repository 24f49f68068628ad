"""Causal: what experiments did to pictures, with their controls. Every experiment has a page here, made from its `Kind`."""

from functools import partial

import numpy as np
import streamlit as st

from interp.dashboard import ask, choose, frame, pictures
from interp.dashboard.panel import panel
from interp.dashboard.pickers import pick, plain, put
from interp.experiments.kinds import registered
from interp.figures.drawn import picture_of

frame.needed()

COMMAND = "interp disrupt --model demo --prompts prompts.txt --out cache/disrupt.zarr   # or dose, patch, lens, ..."


def figure_panel(experiment, name, figure):
    """A figure of a result, with pickers for what it may show; a click on a cell picks the arm."""
    chosen = {choice: pick(choice, plain(choice.capitalize()), list(values)) for choice, values in figure.choices.items()}
    of = figure.of(experiment, chosen)
    code = [*ask.opened(experiment).code, *figure.code(chosen)]

    def go_to(*values):
        """Set the pickers to the arm of the cell clicked."""
        for label, value in zip(figure.labels, values, strict=True):
            put(f"{experiment.kind}_{label}", value)

    data = of if figure.result else pictures.cells_of(experiment, [0], [0])
    panel(name, partial(figure.make, of, chosen), data, code, clicked=go_to if figure.labels else None)
    if figure.labels:
        st.caption("Click a cell for its pictures.")
    return of


def labels_of(experiment):
    """Every label of the arms, by name."""
    coordinates = experiment.axes.coords.items()
    return {name: found.to_numpy().tolist() for name, found in coordinates if found.dims == ("arm",) and name != "arm"}


def alike(labels, arm, other, but):
    """Whether two arms differ in these labels alone."""
    return all(values[arm] == values[other] for name, values in labels.items() if name not in but)


def value_of(found, figure, labels, arm):
    """A result's value of an arm, where it has one for each."""
    one = found.sel({name: labels[name][arm] for name in figure.labels})
    name = next(name for name in one.data_vars if f"{name}_low" in one)
    low, high = (float(one[f"{name}_{end}"]) for end in ("low", "high"))
    st.markdown(
        f"{plain(str(name))}: **{float(one[name]):.3f}** [{low:.3f}, {high:.3f}], {plain(str(one.attrs['averaged_over']))}"
    )


def compare_pictures(experiment, kind, shown):
    """One arm's picture against the first, next to its controls, and along each label that is a number."""
    st.subheader("Before and after")
    row, labels = choose.row(experiment), labels_of(experiment)
    drawn = [arm for arm in np.flatnonzero(experiment.done[row]).tolist() if arm not in kind.ends]
    if not drawn:
        st.info("No arm is drawn for this prompt yet.")
        return
    arm = choose.arm_of(labels, drawn, experiment.kind, lambda name: plain(name.replace("_", " ").capitalize()))
    for figure, found in shown:
        if figure.labels:
            value_of(found, figure, labels, arm)
    controls = {}
    for name, values in kind.controls.items():
        for other in drawn:
            if labels[name][other] in values and other != arm and alike(labels, arm, other, (name, "repeat")):
                controls.setdefault(labels[name][other], other)
    pictures.compared("pair", experiment, row, 0, arm, controls=list(controls.values()), also=kind.ends[1:])
    for name, values in labels.items():
        along = [other for other in drawn if alike(labels, arm, other, (name,))]
        if len(along) > 2 and not isinstance(values[arm], str):
            st.caption(f"Along {plain(name.replace('_', ' '))}:")
            shown = [kind.ends[0], *sorted(along, key=values.__getitem__), *kind.ends[1:]]
            images = [picture_of(experiment, row, one) for one in shown]
            pictures.strip(images, [str(experiment.axes["arm"].to_numpy()[one]) for one in shown], width=120)
            pictures.strips_of(f"{name}:strip", experiment, [row], shown)


known = {name: kind for name, kind in registered().items() if kind.page == "causal"}
experiment = choose.experiment(list(known), "Experiment", COMMAND)
kind = known[experiment.kind]
st.caption(plain(f"{experiment.path.name}: {kind.name}, {experiment.facts()['rows']}, {experiment.facts()['pictures']}"))
st.markdown(plain(kind.question))
with frame.explained():
    if not experiment.results:
        st.info("This experiment has no result yet: it is still running, or was stopped. The same command resumes it.")
    else:
        shown = [(figure, figure_panel(experiment, name, figure)) for name, figure in kind.figures.items()]
        if experiment.has_pictures:
            compare_pictures(experiment, kind, shown)
        else:
            st.caption("This experiment draws no pictures.")
