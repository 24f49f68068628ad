"""Where it lives: maps of a channel, or a set of channels, over the picture."""

from functools import partial

import streamlit as st

from interp.analysis import segmentation, tokens
from interp.base.errors import InputError
from interp.dashboard import ask, cached_stores, choose, frame, pictures
from interp.dashboard.explain import explained
from interp.dashboard.panel import opening, panel
from interp.dashboard.pickers import pick, put
from interp.figures import maps as figures

frame.needed()

SETS = ("one channel", "the massive channels", "the 12 largest of this state")

st.title("Where it lives")
run = choose.run()
if "image" not in (run.hidden.children if run.plan.get("record", {}).get("hidden") else ()):
    st.info("This run holds no hidden states of the image stream. Trace it with hidden states:")
    st.code(choose.TRACE_IT, language="bash")
    st.stop()
states = run.hidden["image"]["hidden"]
chosen, largest = ask.consensus(ask.massive(run, "robust")[0], "image")
with st.sidebar:
    which = pick("set", "Show", SETS)
    channel = choose.channel(run, chosen, largest) if which == SETS[0] else None
prompt = choose.prompt(run)
steps, blocks = states["step"].to_numpy().tolist(), states["block"].to_numpy().tolist()
with st.sidebar:
    block = pick("block", "Block", blocks, default=blocks[len(blocks) // 2], slider=True)
    step = pick("step", "Step", steps, default=steps[-1], slider=True)
place = {"prompt": prompt, "step": step, "block": block}
spelled = ", ".join(f"{name}={value}" for name, value in place.items())
begin = opening(run.path)
picture = run.images["image"].sel(prompt=prompt).to_numpy()
underneath = f'picture = run.images["image"].sel(prompt={prompt}).to_numpy()'

if channel is None:
    members = chosen
    if which == SETS[2]:
        members = cached_stores.computed(run.path, "largest", tuple(place.values()), lambda: tokens.largest(run, 12, **place))
    if not members:
        raise InputError("channels: no channel of the image stream is massive here; show one channel, or the 12 largest")
    found = cached_stores.computed(run.path, "set", (*members, *place.values()), lambda: tokens.set_map(run, members, **place))
    values, make = found["heat"], [f"found = interp.tokens.set_map(run, {members}, {spelled})", 'values = found["heat"]']
else:
    values = cached_stores.computed(
        run.path, "map", (channel, *place.values()), lambda: tokens.channel_map(run, channel, **place)
    )
    found, make = None, [f"values = interp.tokens.channel_map(run, {channel}, {spelled})"]
    members = [channel]

rows, columns = values.sizes["token_y"], values.sizes["token_x"]
names = [f"{y},{x}" for y in range(rows) for x in range(columns)]
with st.sidebar:
    at = pick("token", "Token (y,x)", names, default=f"{rows // 2},{columns // 2}")
y, x = (int(part) for part in at.split(","))

over, one = st.columns(2)
with over, explained():

    def go_to(column: int, row: int) -> None:
        """Set the token to the clicked cell."""
        put("token", f"{int(row)},{int(column)}")

    code = [*begin, *make, underneath, f"interp.figures.maps.over_picture(values, picture, token=({y}, {x}))"]
    figure = partial(figures.over_picture, values, picture, token=(y, x))
    panel("over", figure, values, code, cells=lambda drawn: figures.token_cells(drawn, values), clicked=go_to, height=480)
    st.caption("Click a token to show its largest channels in the next plot.")
with one, explained():
    state = cached_stores.computed(run.path, "token", (y, x, *place.values()), lambda: tokens.token(run, y, x, **place))
    code = [*begin, f"values = interp.tokens.token(run, {y}, {x}, {spelled})", "interp.figures.maps.token_channels(values)"]
    panel("token", partial(figures.token_channels, state), state, code, height=480)
    pictures.strip([picture], [f"the picture of row {prompt}"])

masks, curve = st.columns(2)
with masks, explained():
    shown = [prompt, *(row for row in states["prompt"].to_numpy().tolist() if row != prompt)][:3]
    some = run.hidden["image"].to_dataset().sel(prompt=shown)
    clusters = cached_stores.computed(
        run.path,
        "masks",
        (*members, *shown, step, block),
        lambda: segmentation.masks(some, members, steps=[step], blocks=[block]),
    )
    code = [
        *begin,
        f'states = run.hidden["image"].to_dataset().sel(prompt={shown})',
        f"found = interp.segmentation.masks(states, {members}, steps=[{step}], blocks=[{block}])",
        "interp.figures.maps.clusters(found)",
    ]
    panel("masks", partial(figures.clusters, clusters), clusters, code)
with curve, explained():
    if "segmentation_score" in run.results:
        score = cached_stores.computed(run.path, "stored score", (), lambda: run.result("segmentation_score"))
        code = [*begin, 'found = run.result("segmentation_score")', "interp.figures.maps.overlap(found)"]
        panel("overlap", partial(figures.overlap, score), score, code)
    else:
        st.info(
            "Scoring the clusters against the subject needs true masks. Given a folder of masks, this command stores the curve:"
        )
        st.code(f"interp segment {run.path} --masks FOLDER", language="bash")
