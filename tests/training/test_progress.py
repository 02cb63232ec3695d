"""The time that is left of a training, worked by hand with a clock that the test moves."""

import io
import sys

import pytest

from diffjax.training.config import TrainingConfig
from diffjax.training.progress import Bar, TimeLeft


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def walk(left, clock, steps, seconds):
    for step in steps:
        clock.now += seconds
        left.stepped(step)


@pytest.mark.parametrize("start", [0, 1000])
def test_the_time_left_is_that_of_steps_and_of_evaluations_once_one_was_measured(start):
    """90 steps from 10 on of 2 s each, compiled in 50 s; evaluations of 7 and 3 s every 20 steps and at the end."""
    config, clock = TrainingConfig(steps=start + 100, eval_every=20), Clock()
    left = TimeLeft(config, start, evaluates=True, clock=clock)
    assert left.told(start) == "left ?"
    walk(left, clock, [start + 1], 50)
    assert left.seconds(start + 1) is None
    walk(left, clock, range(start + 2, start + 11), 2)
    assert left.seconds(start + 10) == pytest.approx(90 * 2)
    assert left.told(start + 10) == "left 03:00 without evaluations"
    walk(left, clock, range(start + 11, start + 21), 2)
    with left.evaluating():
        clock.now += 7
    assert left.seconds(start + 20) == pytest.approx(80 * 2 + 4 * 7)  # at 40, 60 and 80, and the last
    walk(left, clock, range(start + 21, start + 41), 2)
    with left.evaluating():
        clock.now += 3
        assert left.seconds(start + 40) == pytest.approx(60 * 2 + 3 * 7)  # the time of one that goes on is not a step's
    assert left.seconds(start + 40) == pytest.approx(60 * 2 + 3 * 3)  # the first one may have compiled
    assert left.told(start + 40) == "left 02:09"
    walk(left, clock, range(start + 41, start + 101), 2)
    assert left.seconds(start + 100) == pytest.approx(3)


def test_a_training_without_evaluations_counts_none():
    clock = Clock()
    left = TimeLeft(TrainingConfig(steps=10, eval_every=5), 0, evaluates=False, clock=clock)
    walk(left, clock, range(1, 5), 3)
    assert left.seconds(4) == pytest.approx(6 * 3) and left.told(4) == "left 00:18"
    last = TimeLeft(TrainingConfig(steps=10, eval_every=0), 0, evaluates=True, clock=clock)
    walk(last, clock, range(1, 5), 3)
    assert last.told(4) == "left 00:18 without evaluations"  # the one at the end
    with last.evaluating():
        clock.now += 4
    assert last.seconds(4) == pytest.approx(6 * 3 + 4)


def test_the_line_shows_it_and_is_rewritten(monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with Bar(TrainingConfig(steps=4, eval_every=2), 0, evaluates=True) as bar:
        for step in range(1, 5):
            bar.stepped(step)
        bar.shown({"loss": 0.25, "images_per_second": 100.0})
        bar.say("a word")
    first, *_, last = err.getvalue().split("\r")
    assert first == "" and "left ?" in err.getvalue() and "\na word" not in err.getvalue()
    assert "training 100%" in last and "4/4" in last and "loss=0.25, images_per_second=100" in last
