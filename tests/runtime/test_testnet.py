"""A new cluster's files load, fit together, and are nobody else's business."""

import stat

import pytest

from bftkit.config import check_files, load_genesis, load_node_config
from bftkit.errors import ConfigurationError
from bftkit.plugins import load_engines
from bftkit.runtime.client import Client
from bftkit.runtime.client_files import cluster_of, find_client_file, read_client_file
from bftkit.runtime.credentials import read_authority, read_credentials, read_signing_key
from bftkit.runtime.testnet import NewCluster, choose_ports, member_names, write_testnet


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cluster") / "net"
    write_testnet(directory, NewCluster(base_port=30_000, cluster_id="blue"))
    return directory


def test_all_files_are_in_order(net):
    assert check_files([net, net / "client" / "genesis.toml"], load_engines()) == []
    genesis = load_genesis(net / "genesis.toml", load_engines())
    assert [member.peer_address for member in genesis.members] == [f"127.0.0.1:{30_000 + 2 * i}" for i in range(4)]
    assert genesis == cluster_of(net) == cluster_of(net / "client")


def test_each_node_finds_its_own_key_and_certificate(net):
    genesis = load_genesis(net / "genesis.toml", load_engines())
    for member in genesis.members:
        config = load_node_config(net / member.name / "bftkit.toml", load_engines())
        assert config.genesis == genesis
        assert config.warnings == ()
        assert read_signing_key(net / member.name / "keys" / "consensus.key").public_key.hex() == member.public_key
        files = read_credentials(net / member.name / "keys")
        assert (files.cluster_id, files.role, files.name) == ("blue", "node", member.name)
    assert read_authority(net / "authority").cluster_id == "blue"


def test_private_files_are_private(net):
    private = [*net.rglob("*.key"), *net.rglob("first-start")]
    assert len(private) == 4 * 3 + 2 + 1
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)
    assert stat.S_IMODE(net.stat().st_mode) == 0o700


def test_a_client_can_be_made_of_it(net):
    assert Client.open(net).names == Client.open(net / "client", sessions=2).names == ("n0", "n1", "n2", "n3")


def test_a_folder_in_use_is_left_alone(net):
    with pytest.raises(ConfigurationError, match="not empty"):
        write_testnet(net, NewCluster())


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        (NewCluster(replicas=3), "at least 4 members, not 3"),
        (NewCluster(base_port=65_530), "ports"),
        (NewCluster(application="nonsense"), "application"),
        (NewCluster(options={"nonsense": 1}), "nonsense"),
    ],
)
def test_a_cluster_that_cannot_run_is_refused(tmp_path, cluster, reason):
    with pytest.raises(ConfigurationError, match=reason):
        write_testnet(tmp_path / "net", cluster)
    assert not (tmp_path / "net").exists()


def test_names_sort_like_numbers():
    assert member_names(2) == ["n0", "n1"]
    names = member_names(12)
    assert names == sorted(names)
    assert names[-1] == "n11"


def test_free_ports_are_all_different():
    assert len(set(choose_ports(0, 40))) == 40


def test_what_is_no_client_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"client\.toml"):
        find_client_file(tmp_path)
    path = tmp_path / "client.toml"
    for text in ("name = 5", 'name = "x"\nnonsense = 1', "name = ", ""):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=r"client\.toml"):
            read_client_file(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_client_file(tmp_path / "absent.toml")
