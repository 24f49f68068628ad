"""Massive channels: the channels by criterion, their blocks and steps, and the stability of the set."""

from functools import partial

import streamlit as st

from interp.analysis import glance, stability
from interp.analysis import massive as analysis
from interp.dashboard import ask, cached_stores, choose, frame
from interp.dashboard.explain import explained
from interp.dashboard.panel import opening, panel
from interp.dashboard.pickers import pick, plain, put
from interp.figures import channels as figures

frame.needed()

st.title("Massive channels")
run = choose.run()
stream = choose.stream(run)
with st.sidebar:
    criterion = pick("criterion", "Criterion", ["robust", "ratio", "top:8", "top:12", "energy"])
found, call = ask.massive(run, criterion)
chosen, largest = ask.consensus(found, stream)
channel = choose.channel(run, chosen, largest)
block, step = choose.block(run, stream), choose.step(run)

births = {number: int(found["birth"].sel(stream=stream, channel=number)) for number in chosen}
noun = "channel" if len(chosen) == 1 else "channels"
said = ", ".join(f"**{number}** (from block {births[number]})" for number in chosen[:8])
st.markdown(
    f"{len(chosen)} massive {noun} in the {stream} stream by {plain(found.attrs['criterion'])}: {said}"
    + (" and more." if len(chosen) > 8 else ".")
    if chosen
    else f"No channel of the {stream} stream is massive by {plain(found.attrs['criterion'])}; the largest is **{largest}**."
)
st.caption(
    plain(f"{found.attrs['source']}. Consensus: selected in at least half of the blocks from the channel's first one on.")
)

begin = opening(run.path)
spikes, scores = st.columns(2)  # `drill` is filled first: it shows the clicked cell
heat, drill = st.columns(2)
layers, same = st.columns(2)
with drill, explained():
    state = cached_stores.computed(
        run.path, "channels", (block, step, stream), lambda: glance.channels(run, block=block, step=step, stream=stream)
    )
    code = [
        *begin,
        f"values = interp.glance.channels(run, block={block}, step={step}, stream={stream!r})",
        f"interp.figures.channels.one_state(values, selected={chosen})",
    ]
    panel("state", partial(figures.one_state, state, selected=chosen), state, code)
with heat, explained():
    ratio = cached_stores.computed(run.path, "ratio", (channel, stream), lambda: glance.ratio(run, channel, stream=stream))

    def go_to(x: int, y: int) -> None:
        """Set the pickers to the clicked cell."""
        put("step", int(x))
        put("block", int(y))

    title = f"channel {channel} over the median channel, {stream} stream"
    code = [
        *begin,
        f"values = interp.glance.ratio(run, {channel}, stream={stream!r})",
        f'interp.figures.channels.steps(values, {title!r}, "ratio", block={block}, step={step})',
    ]
    figure = partial(figures.steps, ratio, title, "ratio", block=block, step=step)
    panel("ratio", figure, ratio, code, cells=lambda drawn: figures.step_cells(drawn, ratio), clicked=go_to)
    st.caption("Click a cell to show every channel there in the next plot.")
here, place = found.sel(stream=stream, block=block), {"block": block, "stream": stream}
with spikes, explained():
    code = [*call, f"interp.figures.channels.spikes(found, block={block}, stream={stream!r})"]
    panel("spikes", partial(figures.spikes, found, **place), here, code)
with scores, explained():
    code = [*call, f"interp.figures.channels.threshold(found, block={block}, stream={stream!r})"]
    panel("threshold", partial(figures.threshold, found, **place), here, code)

with layers, explained():
    lines = (chosen or [largest])[:8]
    made = ask.result(
        run,
        "profile",
        {"channels": lines, "stream": stream, "steps": "all"},
        lambda: analysis.profile(run, lines, stream=stream),
        run.stats["mean_abs"].nbytes * 2,
        f"interp.massive.profile(run, {lines}, stream={stream!r})",
    )
    if made is None:
        rough = cached_stores.computed(run.path, "rough", (*lines, stream), lambda: glance.profile(run, lines, stream=stream))
        made = rough, [*begin, f"found = interp.glance.profile(run, {lines}, stream={stream!r})"]
    panel("layers", partial(figures.layers, made[0]), made[0], [*made[1], "interp.figures.channels.layers(found)"])
with same, explained():
    made = ask.result(
        run,
        "stability",
        {"k": 8, "stream": stream},
        lambda: stability.sets(run, 8, stream=stream),
        run.stats["mean_abs"].nbytes,
        f"interp.stability.sets(run, 8, stream={stream!r})",
    )
    if made is not None:
        panel("stability", partial(figures.stability, made[0]), made[0], [*made[1], "interp.figures.channels.stability(found)"])
