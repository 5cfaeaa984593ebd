"""HotStuff keeps every promise of the contract."""

import pytest

from bftkit.testing.conformance import conformance_cases


@pytest.mark.parametrize("case", conformance_cases("hotstuff"), ids=str)
def test_it_keeps_its_promises(case):
    case.run()
