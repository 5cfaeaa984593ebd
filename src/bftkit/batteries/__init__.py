"""Ready state machines, to start from and to measure with."""
