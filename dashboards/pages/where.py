"""Where it lives: maps of a channel, or a set of channels, over the picture."""

import streamlit as st

from interp.analysis import sources, tokens
from interp.base.errors import InputError
from interp.dashboard import ask, choose, frame, pictures
from interp.dashboard.pickers import pick, put

frame.needed()

SETS = ("one channel", "the massive channels", "the 12 largest of this state")

run = choose.run()
opened = ask.opened(run)
stream = run.streams[0].name
if stream not in (run.hidden.children if run.plan.get("record", {}).get("hidden") else ()):
    choose.stop(f"This run holds no hidden states of the {stream} stream. Trace it with hidden states:")
states = run.hidden[stream].to_dataset()["hidden"]
chosen, largest = ask.consensus(ask.massive(opened), stream)
which = pick("set", "Show", SETS)
channel = choose.channel(run, chosen, largest) if which == SETS[0] else None
prompt = choose.prompt(run)
steps, blocks = states["step"].to_numpy().tolist(), states["block"].to_numpy().tolist()
block = pick("block", "Block", blocks, default=blocks[len(blocks) // 2], slider=True)
step = pick("step", "Step", steps, default=steps[-1], slider=True)
place, frames = {"prompt": prompt, "step": step, "block": block}, sources.frames_of(states)
text, shown_picture = f'run.images["image"].sel(prompt={prompt}).to_numpy()', run.images["image"].sel(prompt=prompt)
if frames > 1:
    place["frame"] = pick("frame", "Latent frame", range(frames), default=frames // 2, slider=True)
    number = tokens.picture_of(run, place["frame"])
    text = f'run.images["video"].sel(prompt={prompt}).isel(frame={number}).to_numpy()'
    shown_picture = run.images["video"].sel(prompt=prompt).isel(frame=number)
picture = opened.named("picture", text, shown_picture.to_numpy())

if channel is None:
    members = opened.ask("tokens.largest", 12, **place).value if which == SETS[2] else chosen
    if not members:
        raise InputError(f"channels: no channel of the {stream} stream is massive here; show one channel, or the 12 largest")
    found = opened.ask("tokens.set_map", members, **place)
    values = found.named("values", 'found["heat"]', found.value["heat"])
else:
    values, members = opened.ask("tokens.channel_map", channel, **place), [channel]

rows, columns = values.value.sizes["token_y"], values.value.sizes["token_x"]
names = [f"{y},{x}" for y in range(rows) for x in range(columns)]
at = pick("token", "Token (y,x)", names, default=f"{rows // 2},{columns // 2}")
y, x = (int(part) for part in at.split(","))

over, one = st.columns(2)
with over, frame.explained():

    def go_to(column: int, row: int, *of: str) -> None:
        """Set the token to the clicked cell."""
        put("token", f"{int(row)},{int(column)}")

    values.draw("over", "maps.over_picture", picture, token=(y, x), height=480, clicked=go_to)
    st.caption("Click a token to show its largest channels in the next plot.")
with one, frame.explained():
    opened.ask("tokens.token", y, x, **place).draw("token", "maps.token_channels", height=480)
    pictures.strip([picture.value], [f"the picture of row {prompt}"])

masks, curve = st.columns(2)
with masks, frame.explained():
    shown = [prompt, *(row for row in states["prompt"].to_numpy().tolist() if row != prompt)][:3]
    text = f"run.hidden[{stream!r}].to_dataset().sel(prompt={shown})"
    some = opened.named("states", text, run.hidden[stream].to_dataset().sel(prompt=shown))
    of_frame = {"frame": place["frame"]} if frames > 1 else {}
    some.ask("segmentation.masks", members, steps=[step], blocks=[block], **of_frame).draw("masks", "maps.clusters")
with curve, frame.explained():
    if "segmentation_score" in run.results:
        score = opened.cached("run.result('segmentation_score')", lambda: run.result("segmentation_score"))
        score.draw("overlap", "maps.overlap")
    else:
        st.info(
            "Scoring the clusters against the subject needs true masks. Given a folder of masks, this command stores the curve:"
        )
        st.code(f"interp segment {run.path} --masks FOLDER", language="bash")
