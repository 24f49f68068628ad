"""Massive channels: the channels by criterion, their blocks and steps, and the stability of the set."""

import streamlit as st

from interp.dashboard import ask, choose, frame
from interp.dashboard.pickers import pick, plain, put

frame.needed()

run = choose.run()
opened = ask.opened(run)
stream = choose.stream(run)
criterion = pick("criterion", "Criterion", ["robust", "ratio", "top:8", "top:12", "energy"])
massive = ask.massive(opened, criterion)
found = massive.value
chosen, largest = ask.consensus(massive, stream)
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

spikes, scores = st.columns(2)  # `drill` is filled first: it shows the clicked cell
heat, drill = st.columns(2)
layers, same = st.columns(2)
with drill, frame.explained():
    state = opened.ask("glance.channels", block=block, step=step, stream=stream)
    state.draw("state", "channels.one_state", selected=chosen)
with heat, frame.explained():
    ratio = opened.ask("glance.ratio", channel, stream=stream)

    def go_to(x: int, y: int, *of: str) -> None:
        """Set the pickers to the clicked cell."""
        put("step", int(x))
        put("block", int(y))

    title = f"channel {channel} over the median channel, {stream} stream"
    ratio.draw("ratio", "channels.steps", title, "ratio", block=block, step=step, clicked=go_to)
    st.caption("Click a cell to show every channel there in the next plot.")
place = {"block": block, "stream": stream}
with spikes, frame.explained():
    massive.draw("spikes", "channels.spikes", data=found.sel(place), **place)
with scores, frame.explained():
    massive.draw("threshold", "channels.threshold", data=found.sel(place), **place)

reads = run.stats["mean_abs"].nbytes
with layers, frame.explained():
    lines = {"channels": (chosen or [largest])[:8], "stream": stream}
    exact = ask.result(opened, "profile", "massive.profile", reads=reads * 2, stored={"steps": "all"}, **lines)
    (exact or opened.ask("glance.profile", **lines)).draw("layers", "channels.layers")
with same, frame.explained():
    sets = ask.result(opened, "stability", "stability.sets", reads=reads, k=8, stream=stream)
    if sets is not None:
        sets.draw("stability", "channels.stability")
