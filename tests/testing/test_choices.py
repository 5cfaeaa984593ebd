"""Random decisions: drawn, recorded, played back, and left out."""

from __future__ import annotations

from bftkit.testing.choices import Choices


def asked(choices: Choices) -> list[object]:
    answers: list[object] = []
    for turn in range(200):
        answers.append(choices.network.chance("loss", turn % 3, 0.3))
        answers.append(choices.network.below("delay", turn % 3, 50))
        answers.append(choices.disk.among("mode", 0, "abc"))
        answers.append(choices.network.chance("never", 0, 0.0))
    return answers


def test_one_seed_gives_the_same_answers_recorded_or_not():
    assert asked(Choices(7)) == asked(Choices(7, record=True))
    assert asked(Choices(7)) != asked(Choices(8))


def test_what_was_recorded_is_played_back():
    recording = Choices(7, record=True)
    answers = asked(recording)
    assert recording.recorded
    assert all(recording.recorded.values()), "an answer that is the default is not written down"
    assert asked(Choices(99, decisions=recording.recorded)) == answers, "whatever the seed"


def test_a_decision_that_is_left_out_becomes_the_default_and_renames_nothing_else():
    recording = Choices(7, record=True)
    before = asked(recording)
    decisions = dict(recording.recorded or {})
    name = next(name for name in decisions if name[:3] == ("network", "delay", 1))
    del decisions[name]
    after = asked(Choices(7, decisions=decisions))
    changed = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert len(changed) == 1
    assert changed[0][1] == 0


def test_nothing_decided_means_nothing_happens():
    answers = asked(Choices(7, decisions={}))
    assert set(answers) == {False, "a"}


def test_an_answer_stays_within_what_is_possible():
    decided = {("network", "delay", 0, 0): 40}
    assert Choices(1, decisions=decided).network.below("delay", 0, 10) == 9


def test_details_have_sources_of_their_own():
    choices = Choices(7)
    assert choices.random("disk", 1).random() == Choices(7).random("disk", 1).random()
    assert choices.random("disk", 1).random() != choices.random("disk", 2).random()
