"""Scenarios: commands are carried out as written, and what is not a command is refused with its line."""

import re

import pytest

from bftkit.plugins import load_engine
from bftkit.testing.checkers import Violation
from bftkit.testing.engine_group import EngineGroup, Rewrite
from bftkit.testing.scenario import Scenario, ScenarioError, replay_scenario, scenarios_page
from bftkit.testing.solo import solo_spec

PBFT = load_engine("pbft")
SOLO = """\
# One engine decides by itself.
cluster 1 batches_per_position=2
submit a of 0
submit b of 0
run 5
status
----
    0 n0 Durable p1 -> n0
    0 n0 Durable p2 -> n0
    1 n0 COMMITS 1 [a]
    1 n0 COMMITS 2 [b]
    5 n0 view 0, normal, committed 2
"""


def silence(member: int, group: EngineGroup) -> Rewrite:
    return lambda receiver, message: None


def traces(*lines: str) -> str:
    """What happens, with the commands left out."""
    return replay_scenario("\n".join([*lines, "----"]), PBFT, {"silence": silence}).partition("----\n")[2]


def test_any_engine_has_scenarios():
    assert replay_scenario(SOLO, solo_spec()) == SOLO


def test_traces_are_written_anew_and_the_rest_is_kept():
    stale = re.sub(r"(?m)^ +\d.*\n", "   99 something else\n", SOLO) + "\n# again\nrun 1\n----\n  3 n0 was here\n"
    assert replay_scenario(stale, solo_spec()) == SOLO + "\n# again\nrun 1\n----\n"


def test_options_and_the_interval_are_the_scenarios_own():
    scenario = Scenario(PBFT)
    scenario.carry_out("cluster 5 interval=2 seed=3 view_timeout_ms=77 in_flight=1")
    context = scenario.group.instances[4].context
    assert context.limits.checkpoint_interval == 2
    assert (context.options.view_timeout_ms, context.options.in_flight) == (77, 1)
    assert len(context.membership) == 5


def test_losses_cuts_and_healing():
    lost = traces("cluster 4", "lose PrePrepare of 0 to 3", "submit a of 0", "run 5")
    assert "n3 Prepare" not in lost
    assert "n0 COMMITS" in lost
    cut = traces("cluster 4", "cut 2 3", "submit a of 0", "run 5")
    assert "COMMITS" not in cut
    healed = traces("cluster 4", "cut 2 3", "lose Prepare of 0 to 1", "heal", "submit a of 0", "run 5")
    assert healed.count("COMMITS") == 4


def test_members_lie_crash_and_restart():
    told = traces("cluster 4", "lie silence 0", "crash 3", "submit a of 0 to 1 2", "run 5", "restart 3", "status")
    assert "n0 Prepare" not in told
    assert told.splitlines()[0].split() == ["0", "n3", "crashes"]
    assert "5 n3 restarts" in told
    assert re.search(r"n1 view 0, normal, committed 0, waits for .* from n0", told)
    assert "n3 is down" in traces("cluster 4", "crash 3", "status")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("dance", "no such command"),
        ("cluster", r"is not: cluster MEMBERS"),
        ("cluster 4 colour=red", "colour"),
        ("cluster 4 in_flight=many", "in_flight"),
        ("cluster 4 in_flight=0", "in_flight is 0"),
        ("submit a by 0", "is not: submit BATCH of ORIGIN"),
        ("submit a of 0 at 1", "is not: submit BATCH of ORIGIN"),
        ("submit a of 0 to 9", "out of range"),
        ("cut", "is not: cut MEMBER"),
        ("heal 1", "is not: heal"),
        ("lose Prepare of 0 to", "is not: lose KIND of MEMBER"),
        ("lie politely 1", "the lies are silence"),
        ("crash seven", "is not: crash MEMBER"),
        ("restart 9", "out of range"),
        ("transfer 0 to 9", "out of range"),
        ("run", "is not: run MILLISECONDS"),
        ("status 1", "is not: status"),
    ],
)
def test_what_is_no_command_is_refused_with_its_line(line, reason):
    scenario = Scenario(PBFT, {"silence": silence})
    scenario.carry_out("cluster 4")
    with pytest.raises(ScenarioError, match=reason) as caught:
        scenario.carry_out(line)
    assert line in str(caught.value)


def test_networks_get_worse_and_better():
    scenario = Scenario(PBFT)
    for line in ("cluster 4", "loss 20", "repeat 5", "delay 3 9", "cut 1", "lose Prepare of 0 to 2"):
        scenario.carry_out(line)
    group = scenario.group
    assert (group.loss, group.repeat, group.delay_ms) == (0.2, 0.05, (3, 9))
    scenario.carry_out("heal")
    assert (group.loss, group.repeat, group.delay_ms) == (0.0, 0.0, (1, 1))
    scenario.carry_out("submit a of 0")
    scenario.carry_out("run 5")
    assert [len(one.log) for one in group.instances] == [1] * 4


def played(*lines: str) -> EngineGroup:
    scenario = Scenario(PBFT)
    for line in lines:
        scenario.carry_out(line)
    return scenario.group


def test_what_settles_has_decided_everything_or_is_a_violation():
    begun = ["cluster 4", "cut 0", "crash 1 after 3", "crash 3", "submit a of 2 to 2", "run 2000"]
    group = played(*begun, "settle 20000")
    assert all(one.alive and len(one.decided) == 1 for one in group.instances)
    with pytest.raises(Violation, match="not within 20000 ms"):
        played(*begun, "await 20000")
    with pytest.raises(Violation, match="not within 20000 ms"):
        played(*begun, "crash 0 for good", "crash 1 for good", "settle 20000")


def test_whoever_has_crashed_for_good_stays_away():
    group = played("cluster 4", "crash leader for good", "submit a of 1", "restart all", "settle 20000", "restart 0")
    assert [one.alive for one in group.instances] == [False, True, True, True]
    assert [len(one.decided) for one in group.instances] == [0, 1, 1, 1]


def test_twins_are_numbered_behind_the_members():
    scenario = Scenario(PBFT)
    for line in ("cluster 4 twins=1", "submit a of 1 to 0 1 2 3", "submit b of 1 to 4", "run 4", "settle 30000"):
        scenario.carry_out(line)
    assert [one.identity for one in scenario.group.instances] == [0, 1, 2, 3, 0]


def test_readers_leaders_and_the_end_of_an_epoch():
    scenario = Scenario(solo_spec())
    for line in ("cluster 1", "submit a of 0", "run 2", "read leader", "transfer 0 to leader", "seal 0 at 1"):
        scenario.carry_out(line)
    assert [(answer.token, answer.position) for _, answer in scenario.group.reads] == [(1, 1)]
    scenario.carry_out("submit b of 0")
    scenario.carry_out("run 5")
    assert len(scenario.group.instances[0].log) == 1


def test_a_scenario_begins_with_a_cluster():
    for text in ("run 5\n", "----\n"):
        with pytest.raises(ScenarioError, match="begins with a cluster"):
            replay_scenario(text, PBFT)


def test_a_page_shows_comments_as_text_and_the_rest_as_it_is(tmp_path):
    path = tmp_path / "by_itself.txt"
    path.write_text(SOLO, encoding="utf-8")
    page = scenarios_page("Solo", "What it does.", [path])
    assert page.startswith(
        "# Solo\n\nWhat it does.\n\n## By itself\n\nOne engine decides by itself.\n\n```text\ncluster 1"
    )
    assert page.endswith("    5 n0 view 0, normal, committed 2\n```\n")
