"""A node as files describe it."""

from bftkit.runtime.client_port import CLIENT_OUTBOX_BYTES
from bftkit.runtime.node_files import node_parts
from bftkit.runtime.testnet import NewCluster, write_testnet


def test_what_may_wait_for_a_peer_is_set_and_what_may_wait_for_a_client_is_not(tmp_path):
    write_testnet(tmp_path / "net", NewCluster(base_port=0))
    file = tmp_path / "net" / "n0" / "bftkit.toml"
    text = file.read_text()
    assert "outbox_bytes = 16777216" in text
    file.write_text(text.replace("outbox_bytes = 16777216", "outbox_bytes = 33554432"))
    parts = node_parts(str(file))
    assert parts.transport._endpoint.tuning.outbox_bytes == 33_554_432
    assert parts.port._endpoint.tuning.outbox_bytes == CLIENT_OUTBOX_BYTES
