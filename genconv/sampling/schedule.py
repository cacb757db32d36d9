"""Schedules: one way to say how a number changes from step to step."""

__all__ = ["Knots", "value_at"]

Knots = float | list[tuple[int, float]]


def value_at(knots: Knots, step: int) -> float:
    """Read a schedule at one step.

    Args:
        knots: one value for all steps, or (step, value) pairs in ascending order: before the first
            and after the last the value is constant; between two positive ones it runs
            geometrically, as annealing does, and linearly where one of them is 0.
        step: counted from 0.
    """
    if not isinstance(knots, list | tuple):
        return float(knots)
    a, first = next((k for k in reversed(knots) if k[0] <= step), knots[0])
    b, last = next((k for k in knots if k[0] >= step), knots[-1])
    along = (step - a) / (b - a) if b > a else 0.0
    if first > 0 and last > 0:
        return first * (last / first) ** along
    return first + (last - first) * along
