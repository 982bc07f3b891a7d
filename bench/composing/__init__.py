"""The parts of the bench of results."""
