"""A replica's place in an epoch, and what it is not built for."""

import msgspec
import pytest

from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.epoch import Genesis
from bftkit.replica.settings import ReplicaSettings
from tests.replica.parts import Options, genesis_of, scripted_spec


@pytest.mark.parametrize(("successive", "refused"), [(1, False), (2, True)])
def test_weights_with_which_one_silent_member_stops_the_others_are_refused(successive, refused):
    spec = msgspec.structs.replace(scripted_spec(), successive_leaders=lambda options: successive)
    config = genesis_of(spec=spec).config
    heavy = (msgspec.structs.replace(config.members[0], weight=8), *config.members[1:])
    genesis = Genesis(msgspec.structs.replace(config, members=heavy), EMPTY_CHECKPOINT)
    if refused:
        with pytest.raises(ValueError, match="3, 1, 1, 1 would do"):
            ReplicaSettings(0, spec, genesis, Options())
    else:
        assert ReplicaSettings(0, spec, genesis, Options()).context.leaders.leader(0) == 0
