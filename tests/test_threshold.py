"""Goals and thresholds: whatever threshold there is, none does better than the chosen one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs import threshold
from jobs.errors import NoData, SpecError
from jobs.threshold import Goal
from tests.scored import bounded

probabilities = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5 + 1e-13, 0.75, 0.9, 1.0]) | st.floats(0, 1)
rows = st.lists(st.tuples(probabilities, st.booleans()), min_size=1, max_size=30)
goals = st.sampled_from([Goal("accuracy"), Goal("f1"), Goal("balanced_accuracy")]) | st.builds(
    Goal, st.sampled_from(["precision", "recall"]), st.sampled_from([0.05, 0.5, 0.75, 0.9, 0.99])
)


def arrays(found):
    return np.array([p for p, _ in found], float), np.array([positive for _, positive in found], bool)


def every_threshold(p):
    """One between any two probabilities that can be told apart by ten decimals."""
    values = sorted({0.0, 1.0, *p.tolist()})
    middles = [(low, round((low + high) / 2, 10), high) for low, high in zip(values, values[1:], strict=False)]
    return [middle for low, middle, high in middles if low < middle <= high and middle < 1]


def worth(figures, goal):
    """What is to be large, first things first, and whether the goal is reached."""
    value = {name: -1.0 if figure is None else figure for name, figure in figures.items()}
    if goal.at_least is None:
        return (True, round(value[goal.metric], 12))
    other = "recall" if goal.metric == "precision" else "precision"
    reached = value[goal.metric] >= goal.at_least and figures["precision"] is not None
    if reached:
        return (True, value[other], value[goal.metric])
    return (False, value[goal.metric], value[other])


@bounded
@given(rows, goals)
@example([(0.0, True), (0.9999999999999999, False)], threshold.Goal("accuracy"))
def test_no_other_threshold_is_worth_more_and_of_equals_it_is_nearest_to_a_half(found, goal):
    p, positive = arrays(found)
    chosen = threshold.choose(p, positive, goal)
    assert chosen.achieved == threshold.figures_at(p, positive, chosen.value)
    if positive.all() or not positive.any():
        assert (chosen.value, chosen.reached) == (0.5, False)
        return
    best = worth(chosen.achieved, goal)
    assert chosen.reached == best[0] and 0 < chosen.value < 1
    assert chosen.value in every_threshold(p)
    for other in every_threshold(p):
        value = worth(threshold.figures_at(p, positive, other), goal)
        assert value <= best
        if value == best:
            assert abs(chosen.value - 0.5) <= abs(other - 0.5) + 1e-9


@bounded
@given(rows, st.floats(0, 1))
def test_figures_are_those_of_the_rows_from_the_threshold_on(found, at):
    figures = threshold.figures_at(*arrays(found), at)
    called = [(p >= at, positive) for p, positive in found]

    def share(of, among):
        return None if not among else pytest.approx(len(of) / len(among))

    assert figures["accuracy"] == share([1 for said, is_so in called if said == is_so], called)
    positives, negatives = [x for x in called if x[1]], [x for x in called if not x[1]]
    assert figures["recall"] == share([1 for said, _ in positives if said], positives)
    assert figures["specificity"] == share([1 for said, _ in negatives if not said], negatives)
    said_so = [x for x in called if x[0]]
    assert figures["precision"] == share([1 for _, is_so in said_so if is_so], said_so)
    assert figures["predicted_positive_rate"] == share(said_so, called)
    if figures["precision"] and figures["recall"]:
        mean = 2 / (1 / figures["precision"] + 1 / figures["recall"])
        assert figures["f1"] == pytest.approx(mean)


def test_the_stored_threshold_parts_the_rows_as_the_chosen_one():
    draw = np.random.default_rng(0)
    p, positive = draw.random(1_000), draw.random(1_000) < 0.5
    value = threshold.choose(p, positive, Goal("f1")).value
    assert float(f"{value:.10g}") == value


def test_a_goal_out_of_reach_comes_as_close_as_it_can_and_says_so():
    p = np.array([0.9, 0.8, 0.7, 0.6])
    chosen = threshold.choose(p, np.array([False, True, True, False]), Goal("precision", 0.9))
    assert not chosen.reached
    assert chosen.achieved["precision"] == pytest.approx(2 / 3) and chosen.achieved["recall"] == 1.0
    chosen = threshold.choose(np.array([0.0, 0.4]), np.array([True, False]), Goal("recall", 0.9))
    assert not chosen.reached  # P(positive) = 0 is called positive by no threshold


def test_what_has_no_value_is_none():
    figures = threshold.figures_at(np.array([0.1]), np.array([False]), 0.5)
    assert figures["precision"] is figures["recall"] is figures["f1"] is None
    assert figures["accuracy"] == figures["specificity"] == figures["balanced_accuracy"] == 1.0
    assert threshold.figures_at(np.array([0.9]), np.array([True]), 0.5)["specificity"] is None
    for call in (
        lambda: threshold.choose(np.zeros(0), np.zeros(0, bool), Goal("f1")),
        lambda: threshold.figures_at(np.zeros(0), np.zeros(0, bool), 0.5),
    ):
        with pytest.raises(NoData):
            call()


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("accuracy", Goal("accuracy")),
        (" F1 ", Goal("f1")),
        ("balanced_accuracy", Goal("balanced_accuracy")),
        ("precision>=0.95", Goal("precision", 0.95)),
        ("recall >= .9", Goal("recall", 0.9)),
        ("recall>=0.99999999", Goal("recall", 0.99999999)),
        ("precision>=0.00001", Goal("precision", 0.00001)),
    ],
)
def test_a_goal_is_read_and_written(text, goal):
    assert threshold.parse(text) == goal
    assert threshold.parse(str(goal)) == goal


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("precision", "say how much"),
        ("recall>=0", "between 0 and 1"),
        ("recall>=1", "between 0 and 1"),
        ("precision>=95", "between 0 and 1"),
        ("precision>=95%", "not a goal"),
        ("precision=0.9", "not a goal"),
        ("f1>=0.9", "not a goal"),
        ("recall>=nan", "not a goal"),
        ("recall>=1e-1", "not a goal"),
        ("", "not a goal"),
    ],
)
def test_what_is_no_goal_is_refused_with_the_goals_there_are(text, problem):
    with pytest.raises(SpecError, match=problem) as refused:
        threshold.parse(text)
    assert "precision>=0.95" in refused.value.hint


@bounded
@given(st.text(max_size=40) | st.from_regex(r"(precision|recall|f1) *>?= *[0-9.e-]{0,8}", fullmatch=True))
def test_any_text_is_a_goal_or_a_spec_error(text):
    try:
        goal = threshold.parse(text)
    except SpecError:
        return
    assert goal.at_least is None or 0 < goal.at_least < 1
