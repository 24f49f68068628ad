"""Guidance: sweeps in numbers and pictures, two settings compared, and a live tab."""

import streamlit as st

from interp.base.errors import InputError
from interp.dashboard import ask, choose, frame, live, pictures
from interp.dashboard.pickers import pick, plain
from interp.figures.drawn import picture_of
from interp.store.tables import table

frame.needed()

GALLERY = 6


def numbers(experiment):
    """Curves and the metric table."""
    found = experiment.result("sweep")
    ask.opened(experiment).named("found", "experiment.result('sweep')", found).draw("sweep", "guidance.sweep")
    lines = table(found[["value", "low", "high", "over_first", "over_first_low", "over_first_high"]])
    measure = pick("measure", "Measure", [str(value) for value in found["measure"].to_numpy()])
    st.subheader(f"{plain(measure)} by setting")
    shown = lines[lines["measure"] == measure].drop(columns=["measure"]).sort_values("value")
    st.dataframe(shown.drop(columns=[c for c in shown if str(c).startswith("value") and c != "value"]), hide_index=True)
    first = found.attrs["control"].removeprefix("the first setting, ")
    st.caption(plain(f"over_first: the difference to {first}. Intervals: {found.attrs['interval']}"))
    st.subheader("How often a picture is nearer to real ones than the first setting's, and the cost")
    won = table(found[["win", "win_low", "win_high"]]).pivot_table(
        index="setting", columns="won", values=["win", "win_low", "win_high"], sort=False
    )
    won.columns = [f"{measure}: {name}" for name, measure in won.columns]
    won["forwards a picture"] = found["forwards"].to_series()
    st.dataframe(won.reset_index(), hide_index=True)


def two_settings(experiment, left, right):
    """Pickers of two settings side by side, each (caption, key, initial arm); returns their arms."""
    arms = []
    for column, (caption, key, first) in zip(st.columns(2), (left, right), strict=True):
        with column:
            st.caption(caption)
            arms.append(choose.setting(experiment, key, first))
    return arms


def gallery(experiment):
    """One row of pictures per prompt of a seed: the first setting and two picked ones."""
    last = len(experiment.axes["arm"]) - 1
    one, other = two_settings(experiment, ("One setting", "a", 1), ("Another", "b", last))
    arms = list(dict.fromkeys([0, one, other]))
    names = [str(name) for name in experiment.axes["arm"].to_numpy()]
    everyone = choose.seeds(experiment)
    rows = everyone[:GALLERY]
    columns = st.columns(2)
    for number, row in enumerate(rows):
        images = [picture_of(experiment, row, arm) for arm in arms]
        with columns[number % 2]:
            st.caption(f"{row}: {plain(str(experiment.axes['prompt_text'].to_numpy()[row]))}")
            pictures.strip(images, [names[arm] for arm in arms], width=128)
    if len(everyone) > len(rows):
        st.caption(f"The first {len(rows)} of {len(everyone)} prompts with this seed.")
    pictures.strips_of("gallery", experiment, rows, arms, "guidance.gallery")


def against(experiment):
    """A slider between two settings."""
    row = choose.row(experiment)
    last = len(experiment.axes["arm"]) - 1
    one, other = two_settings(experiment, ("Left of the slider", "left", 0), ("Right of the slider", "right", last))
    pictures.compared("pair", experiment, row, one, other)


def draw_live():
    """Draw with the demo model on this machine's CPU."""
    st.caption("Draws with the demo model (64 x 64 pixels) on this machine's CPU, one picture at a time for all sessions.")
    with st.form("live"):
        prompt = st.text_input("Prompt", "a large red striped circle in the center on a black background", max_chars=400)
        left, right = st.columns(2)
        first = left.text_input("Guidance", "none", help="Such as none, cfg:3, dg:1, cfg:2+dg:2, pag:0.5")
        second = right.text_input("Against", "cfg:2+dg:2")
        steps = left.slider("Steps", 2, live.MOST, 20)
        seed = right.number_input("Seed", 0, 2**31 - 1, 0)
        pressed = st.form_submit_button("Draw", type="primary")
    if pressed:
        if not prompt.strip():
            raise InputError("prompt must not be empty")
        drawn = live.draw(prompt, [first.strip(), second.strip()], int(steps), int(seed))
        if drawn is not None:
            st.session_state["interp:live"] = [found["image"].to_numpy()[0] for found in drawn], [first, second]
    if "interp:live" in st.session_state:
        pictures.pair("live-pair", *st.session_state["interp:live"])


views = {"Sweep": numbers, "Gallery": gallery, "Two settings": against}
view = pick("view", "View", [*views, "Live"])
if view == "Live":
    with frame.explained():
        draw_live()
else:
    experiment = choose.experiment(["sweep"], "Sweep", choose.SWEEP_IT, name="sweep")
    with frame.explained():
        if "sweep" not in experiment.results and view == "Sweep":
            raise InputError(
                "this sweep has no result yet: it is still running, or was stopped; run the same command again to resume it"
            )
        views[view](experiment)
