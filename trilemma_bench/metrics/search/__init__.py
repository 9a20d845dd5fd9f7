"""Which samples are near each other: exact, at a fraction of the price of all their distances.

A matrix product in the cheapest arithmetic that serves first bounds every distance from both sides (`products.py`, of
the samples as `sides.py` has them). Pairs whose bounds leave a question open are measured one by one (`bounding.py`),
at last as `distances.py` defines it. The answers therefore depend neither on the blocks nor on the arithmetic that
found them.
"""

from trilemma_bench.metrics.search.between import close_pairs, nearest_others
from trilemma_bench.metrics.search.sides import Side, features_of, sides_of
from trilemma_bench.metrics.search.within import nearest_distances, nearest_neighbours

__all__ = [
    "Side",
    "close_pairs",
    "features_of",
    "nearest_distances",
    "nearest_neighbours",
    "nearest_others",
    "sides_of",
]
