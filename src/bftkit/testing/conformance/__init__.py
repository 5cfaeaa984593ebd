"""The conformance kit: everything that the contract of engines promises, tried on an engine of any kind.

In an engine's tests::

    from bftkit.testing.conformance import check_engine

    def test_it_keeps_its_promises():
        check_engine("my_engine")

or, with a test for each case, `@pytest.mark.parametrize("case", conformance_cases("my_engine"), ids=str)` and
`case.run()`. On the command line: `bftkit engine test my_engine`. A failure names the promise, the members and the
seed, shows the smallest scenario that could be found, and says how to replay it.
"""

from bftkit.testing.conformance.case import BOUND_MS, Case, Failure, NotConforming, Property
from bftkit.testing.conformance.lies import LIES
from bftkit.testing.conformance.report import (
    PROPERTIES,
    ConformanceReport,
    PropertyResult,
    check_engine,
    conformance_cases,
    examine_engine,
    run_cases,
    sizes_of,
)

__all__ = [
    "BOUND_MS",
    "LIES",
    "PROPERTIES",
    "Case",
    "ConformanceReport",
    "Failure",
    "NotConforming",
    "Property",
    "PropertyResult",
    "check_engine",
    "conformance_cases",
    "examine_engine",
    "run_cases",
    "sizes_of",
]
