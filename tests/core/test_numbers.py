"""Numbers of peers: what is in range."""

import pytest

from bftkit.core.numbers import LARGEST_NUMBER, number_problem


def test_numbers_in_range_are_taken():
    assert number_problem() is None
    assert number_problem(0, 7, LARGEST_NUMBER - 1) is None


@pytest.mark.parametrize("number", [-1, LARGEST_NUMBER, 1 << 70])
def test_one_number_out_of_range_is_enough(number):
    assert number_problem(1, number, 2) == "a number is out of range"
