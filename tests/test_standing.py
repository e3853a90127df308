"""What is known of all objects together is what a walk over them finds, whatever happened since it was last asked."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from test_round_table import record

from scale.merge.round_records import SkippedRound
from scale.state.records import ObjectState
from scale.state.round_table import SEALED, RoundTable
from scale.state.standing import Standing
from scale.store.journal import entry_text, read_manifest, write_manifest
from scale.store.run_folder import RunFolder

OBJECTS, ROUNDS, QUOTA = 3, 4, 7


def objects():
    states = [(f"object_{n}", RoundTable(QUOTA)) for n in range(OBJECTS)]
    return [ObjectState(code, "", "", n, QUOTA, table) for n, (code, table) in enumerate(states)]


def seal(state, _, round_id):
    if state.rounds.record(round_id) is None:
        state.rounds.seal(round_id, record(round_id, 0).unjudged())


def finish(state, _, round_id):
    state.rounds.reopen(round_id)
    state.rounds.finish(round_id, record(round_id, round_id))


def skip(state, _, round_id):
    state.rounds.reopen(round_id)
    state.rounds.skip(round_id, SkippedRound(0, "no"))


def reopen(state, _, round_id):
    state.rounds.reopen(round_id)


def fail(state, standing, round_id):
    state.failures[round_id] += 1
    standing.touch(state.code)


def end(state, standing, round_id):
    if round_id == 0:
        state.ended = "quota"
        standing.end(state.code)


STEPS = st.lists(
    st.tuples(
        st.sampled_from([seal, finish, skip, reopen, fail, end]),
        st.integers(0, OBJECTS - 1),
        st.integers(0, ROUNDS - 1),
        st.booleans(),
    ),
    max_size=25,
)


def text_of(state):
    return json.dumps([state.collected, state.ended, state.failures.total(), sorted(state.rounds.skipped)])


def check(standing, states):
    open_states = [state for state in states if not state.ended]
    totals = standing.totals()
    assert totals.collected == sum(min(QUOTA, state.collected) for state in states)
    assert totals.missing == sum(state.missing for state in open_states)
    assert totals.failures == sum(state.failures.total() for state in states)
    assert totals.skipped == sum(len(state.rounds.skipped) for state in states)
    waiting = [state for state in open_states if state.rounds.count(SEALED)]
    assert standing.with_waiting() == waiting and list(standing.open.values()) == open_states
    assert standing.waiting == sum(state.rounds.count(SEALED) for state in waiting)
    assert standing.texts(text_of) == {state.code: text_of(state) for state in states}


@settings(max_examples=200, deadline=None)
@given(STEPS, STEPS)
def test_sums_are_those_of_a_walk(before, after):
    states = objects()
    nothing = Standing(states)
    for step, which, round_id, _ in before:
        step(states[which], nothing, round_id)
    standing = Standing(states)  # of a call that goes on
    check(standing, states)
    for step, which, round_id, is_checked in after:
        step(states[which], standing, round_id)
        if is_checked:
            check(standing, states)
    check(standing, states)


def test_a_manifest_of_texts_is_the_one_of_objects(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare()
    entries = {'mug "ü"': {"notes": ["a\nb", "c"], "skipped": []}, "bowl": {"rejected": {"x": 1}, "path": None}}
    for objects_of_run in (entries, {}):
        texts = {code: entry_text(entry) for code, entry in objects_of_run.items()}
        write_manifest(folder, {"run_key": {"a": [1]}, "notes": []}, texts)
        whole = {"format": "bimangrasp-run", "format_version": 1, "run_key": {"a": [1]}, "notes": []}
        wanted = json.dumps(whole | {"objects": objects_of_run}, indent=1, ensure_ascii=False)
        assert folder.manifest.read_text() == wanted + "\n" and read_manifest(folder)["objects"] == objects_of_run
