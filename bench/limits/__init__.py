"""The parts alone: what none of them can be faster than."""
