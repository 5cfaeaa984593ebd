"""A node as a process: its application by name, and definite ends."""

import json
import os
import subprocess
import sys

import pytest

from bftkit.batteries.kv import KeyValue
from bftkit.errors import ConfigurationError
from bftkit.runtime.node_process import load_application, main, node_file, tell_failure
from bftkit.runtime.testnet import NewCluster, write_testnet


def test_an_application_is_made_by_name():
    assert isinstance(load_application("bftkit.batteries.kv:KeyValue"), KeyValue)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_module:Thing", "no_such_module"),
        ("bftkit.batteries.kv:Nothing", "Nothing"),
        ("bftkit.batteries.kv:Put", "cannot be made"),
        ("bftkit.batteries.kv:Size", "lacks apply"),
    ],
)
def test_what_is_no_application_is_refused(name, reason):
    with pytest.raises(ConfigurationError, match=reason):
        load_application(name)


def test_a_folder_stands_for_its_file(tmp_path):
    assert node_file(tmp_path) == tmp_path / "bftkit.toml"
    assert node_file(tmp_path / "other.toml") == tmp_path / "other.toml"


def test_what_cannot_start_is_told_as_a_line_of_json(tmp_path, capfd):
    assert main([str(tmp_path / "nowhere")]) == 2
    line = json.loads(capfd.readouterr().err)
    assert (line["event"], line["level"]) == ("refused", "error")
    assert "nowhere" in line["reason"]


def test_an_application_that_is_not_there_keeps_the_node_down(tmp_path, capfd):
    write_testnet(tmp_path / "net", NewCluster(base_port=0, application="nobody.has:This"))
    assert main([str(tmp_path / "net" / "n0")]) == 2
    assert "nobody.has:This" in json.loads(capfd.readouterr().err)["reason"]


def test_a_child_of_somebody_else_does_not_live():
    done = subprocess.run(
        [sys.executable, "-m", "bftkit.runtime.node_process", "--parent", str(os.getpid() + 1), "nowhere"], check=False
    )
    assert done.returncode == 1


def test_an_error_that_is_not_the_librarys_own_is_one_line_with_its_place():
    said = []
    try:
        raise KeyError("missing")
    except KeyError as error:
        assert tell_failure(error, lambda event, **fields: said.append((event, fields))) == 1
    ((event, fields),) = said
    assert (event, fields["level"], fields["kind"], fields["reason"]) == ("failed", "error", "KeyError", "'missing'")
    assert "test_node_process.py" in fields["traceback"]
