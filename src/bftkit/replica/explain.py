"""Why nothing commits, in words."""

from bftkit.core.ids import ReplicaIndex
from bftkit.replica.replica import Replica


def explain(replica: Replica) -> list[str]:
    """Return sentences that say what a replica waits for, and from whom."""
    names = replica.settings.membership
    if replica.halted:
        return [f"It has stopped for good: {replica.halted}."]
    status = replica.status()
    leader = names.name(status.leader) if status.leader is not None else "nobody"
    lines = [f"It is in view {status.view} ({status.mode}), led by {leader}; position {status.position} is decided."]
    if status.waiting_for:
        lines.append(f"The engine waits for {status.waiting_for}{_from(replica, status.waiting_on)}.")
    if replica.payloads.missing:
        lines.append(f"It is fetching {len(replica.payloads.missing)} batch bodies that it lacks.")
    commits = replica.commits
    if commits.waiting:
        lines.append(f"{commits.waiting} decided positions have not been executed yet.")
    pending = replica.checkpoints.waiting_on()
    if pending is not None:
        lines.append(f"The checkpoint at position {pending[0]} lacks votes{_from(replica, pending[1])}.")
    catch_up = replica.catch_up
    transfer = replica.state_transfer
    if transfer.installing is not None:
        lines.append("It is taking over a state that it fetched.")
    elif transfer.download is not None:
        download = transfer.download
        lines.append(
            f"It is fetching a state from {names.name(download.source)}: {download.received} of {download.size} bytes."
        )
    ahead = max((claim.position for claim in catch_up.claims if claim is not None), default=0)
    if ahead > commits.position:
        lines.append(f"A peer says that it is at position {ahead}, which is further.")
    absent = tuple(peer for peer in replica.settings.others if not catch_up.connected[peer])
    if absent:
        lines.append(f"No channel is open to {_list(replica, absent)}.")
        present = len(names) - len(absent)
        if present < names.quorum.quorum:
            lines.append(f"Only {present} members are in touch where {names.quorum.quorum} are needed to decide.")
    waiting = replica.mempool.waiting_commands
    if waiting:
        lines.append(f"{waiting} commands wait to be put into a batch.")
    if replica.mempool.idle and len(lines) == 1:
        lines.append("Nothing is pending.")
    return lines


def _list(replica: Replica, members: tuple[ReplicaIndex, ...]) -> str:
    return ", ".join(replica.settings.membership.name(member) for member in members)


def _from(replica: Replica, members: tuple[ReplicaIndex, ...]) -> str:
    return f" from {_list(replica, members)}" if members else ""
