"""Study: which of two pictures do raters prefer, without knowing the methods? DG section 5.3, App. I."""

import datetime

import streamlit as st

from interp.analysis import study as analysis
from interp.base.errors import InputError
from interp.dashboard import ask, cached_stores, choose, frame, pictures, roots
from interp.dashboard.pickers import pick, plain
from interp.store.answers import Study, append_answer, parse_answers, read_study, study_file, study_names, write_study

frame.needed()

QUESTIONS = {
    "detail": "Which picture has the better fine details?",
    "colour": "Which picture has the more natural, consistent colours?",
    "prompt": "Which picture matches the prompt better?",
}
SIDES = {"left": ("Left", "Left"), "tie": ("Tie", "Down"), "right": ("Right", "Right")}
KINDS = ["sweep", "disrupt", "dose", "patch", "transport"]


def root_of(path):
    """The root that holds a store: studies are kept next to stores, never in one."""
    root = next(root for root in choose.roots_given() if roots.inside(path, root))
    if (root / "zarr.json").exists():
        raise InputError(f"run: a study is kept next to the stores; start the dashboard on {root.parent}, not on a store")
    return root


def made():
    """Every study under the roots: name, file, root. A link that leads out of its root is ignored."""
    found = {}
    for root in choose.roots_given():
        for name in study_names(root):
            file = study_file(root, name)
            if roots.inside(file, root):
                found.setdefault(name, (file, root))
    return found


def chosen():
    """The study picked in the sidebar: its name, its file, its root."""
    found = made()
    if not found:
        raise InputError("there is no study yet: make one under Set up")
    name = pick("study", "Study", list(found))
    return name, *found[name]


def set_up():
    """Choose the two methods to compare; raters receive only the link."""
    experiment = choose.experiment(KINDS, "Experiment", choose.SWEEP_IT, name="study_experiment")
    names = [str(arm) for arm in experiment.axes["arm"].to_numpy()]
    left, right = st.columns(2)
    with left:
        first = names.index(pick("first", "First method", names, sidebar=False))
    with right:
        second = names.index(pick("second", "Second method", names, default=names[1], sidebar=False))
    both = (experiment.done[:, first] & experiment.done[:, second]).nonzero()[0].tolist()
    if not both:
        raise InputError("rows: no row is drawn under both methods yet")
    with st.form("study"):
        name = st.text_input("Name of the study (raters see it: do not name the methods)", "study-1", max_chars=64)
        count = st.number_input("Pairs", 1, len(both), min(len(both), 100))
        if st.form_submit_button("Make the study", type="primary"):
            root = root_of(experiment.path)
            before = made().get(name)
            if before is not None and before[1] != root:
                raise InputError(f"study: {before[1]} has one named {name!r}; give another name")
            if not roots.inside(study_file(root, name), root):
                raise InputError(f"study: {root / 'studies'} leads out of {root}")
            where = str(experiment.path.relative_to(root))
            write_study(root, name, Study(where, first, second, names[first], names[second], tuple(both[: int(count)])))
            st.success(f"Study made. Raters open this page with ?study_view=Rate&study={plain(name)} in the address.")


def rate():
    """Show one pair and one question at a time; a line is written when all three answers are given."""
    name, file, root = chosen()
    rater = st.session_state.get("interp:rater", "")
    if not rater:  # the field disappears afterwards: a focused field would capture the arrow keys
        with st.form("rater"):
            typed = st.text_input("Your name or initials", max_chars=40).strip()
            st.caption("You can stop at any time and resume later under the same name.")
            if st.form_submit_button("Begin", type="primary") and typed:
                st.session_state["interp:rater"] = typed
                st.rerun()
        return
    study = read_study(file)
    path = root / study.experiment
    if not roots.inside(path, root):
        raise InputError("study: its experiment lies outside the dashboard's root folder")
    experiment = cached_stores.experiment(path)
    answers = file.with_suffix(".jsonl")
    given = {int(answer["pair"]) for answer in parse_answers(answers)[0] if answer.get("rater") == rater}
    waiting = [pair for pair in analysis.order(name, rater, study.rows) if pair[0] not in given]
    st.progress(1 - len(waiting) / len(study.rows), f"{len(study.rows) - len(waiting)} of {len(study.rows)} pairs")
    if not waiting:
        st.success("That was the last pair. Thank you.")
        return
    row, swapped = waiting[0]
    arms = (study.second, study.first) if swapped else (study.first, study.second)
    st.markdown(f"Prompt: **{plain(str(experiment.axes['prompt_text'].to_numpy()[row]))}**")
    pictures.strip([experiment.picture(row, arm) for arm in arms], ["left", "right"], width=460, most=pictures.LARGEST)
    state = st.session_state.setdefault("interp:answers", {})
    if state.get("place") != (name, rater, row):
        state.clear()
        state.update(place=(name, rater, row), said={})
    question = next(word for word in QUESTIONS if word not in state["said"])

    def answer(side, asked, place):
        """Record one answer, unless the question is already answered; write the line after the last question."""
        said = state.get("said", {})
        if state.get("place") != place or asked in said:
            return
        said[asked] = "tie" if side == "tie" else "first" if (side == "left") != swapped else "second"
        if len(said) == len(QUESTIONS):
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            append_answer(answers, {"rater": rater, "pair": row, **said, "left": "second" if swapped else "first", "at": now})
            state.clear()

    said = state["said"]
    st.markdown(f"**{len(said) + 1} of {len(QUESTIONS)}. {QUESTIONS[question]}**")
    with st.container(horizontal=True):
        for side, (label, key) in SIDES.items():
            about = (side, question, (name, rater, row))
            st.button(label, key=f"answer:{side}", shortcut=key, on_click=answer, args=about)
        st.button("Back", key="answer:back", disabled=not said, on_click=said.popitem if said else None, type="tertiary")
    st.caption("Or press the arrow keys: left, down for a tie, right.")


def results():
    """Win rates with intervals, agreement, the answers themselves."""
    _, file, _ = chosen()
    study, (answers, damaged) = read_study(file), parse_answers(file.with_suffix(".jsonl"))
    if damaged:
        st.caption(f"Skipped {damaged} invalid {'line' if damaged == 1 else 'lines'} of the answers' file.")
    if not answers:
        st.info("No answers yet. Raters open this page with the view Rate.")
        return
    rates = analysis.win_rates(answers, study.first_name, study.second_name)
    path = str(file.with_suffix(".jsonl"))
    begin = ("import interp", "from interp.store.answers import read_answers", "")
    text = f"interp.study.win_rates(read_answers({path!r}), {study.first_name!r}, {study.second_name!r})"
    ask.Made(answers, "answers", begin, file).named("found", text, rates).draw("win-rates", "evaluation.win_rates")
    st.dataframe(rates.to_dataframe().reset_index(), hide_index=True)
    st.caption("agreement: Krippendorff's alpha between raters; 1 is full agreement, 0 is chance. Intervals cluster by rater.")


VIEWS = {"Set up": set_up, "Rate": rate, "Results": results}
view = pick("study_view", "View", list(VIEWS))
with frame.explained():
    VIEWS[view]()
