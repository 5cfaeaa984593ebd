"""Terms, views, rounds and positions, as they come from peers."""

LARGEST_NUMBER = 2**53
"""All of them are below this, so that no arithmetic on them leaves 64 bits."""


def number_problem(*numbers: int) -> str | None:
    """Say what is wrong with numbers that a peer sent, or None."""
    return None if all(0 <= number < LARGEST_NUMBER for number in numbers) else "a number is out of range"
