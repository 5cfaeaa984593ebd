"""Findings as text."""

from bftkit.config_errors import Problem, did_you_mean, render


def test_a_finding_shows_its_line_and_underlines_the_place():
    problem = Problem(
        file="net/bftkit.toml",
        line=12,
        column=3,
        width=5,
        source="  lanez = 8",
        key="runtime.lanez",
        message='unknown key "lanez" in [runtime]',
        suggestion='did you mean "lanes"?',
    )
    assert problem.render() == (
        'net/bftkit.toml:12:3: error: unknown key "lanez" in [runtime]\n'
        "   12 |   lanez = 8\n"
        "      |   ^^^^^\n"
        '      = help: did you mean "lanes"?'
    )


def test_the_caret_stands_under_the_key_behind_tabs():
    problem = Problem(file="f", line=1, column=3, width=1, source="\t\tx", message="no")
    assert problem.render().split("\n")[-1] == "      | \t\t^"


def test_a_finding_without_a_place_is_one_line():
    assert Problem(file="f", message="no", severity="warning").render() == "f: warning: no"


def test_errors_come_before_warnings_and_lines_in_order():
    problems = [
        Problem(file="a", line=9, message="late"),
        Problem(file="a", line=1, message="soft", severity="warning"),
        Problem(file="a", line=2, message="early"),
    ]
    text = render(problems)
    assert text.index("early") < text.index("late") < text.index("soft")


def test_the_nearest_word_is_suggested_and_otherwise_all():
    assert did_you_mean("hotstuf", ["pbft", "raft", "hotstuff"]) == 'did you mean "hotstuff"?'
    assert did_you_mean("PBFT", ["pbft", "raft"]) == 'did you mean "pbft"?'
    assert did_you_mean("zzz", ["raft", "pbft"]) == "known here: pbft, raft"
    assert did_you_mean("zzz", []) == ""
