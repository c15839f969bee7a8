"""Users of MovieLens-1M's shape: as many of them, as many items, histories as long, and no taste.

6,040 users and 3,416 items with a million interactions (the data set after leaving out items with fewer than five). A
user's number of items is drawn from an exponential with the set's mean, at least 20; items follow Zipf's law, exponent
1, and a user takes each at most once.
"""

import random
from itertools import accumulate

USERS, ITEMS, INTERACTIONS, SHORTEST = 6_040, 3_416, 1_000_000, 20


def write_shape(path, seed=1):
    """Writes lines `user item item ...`."""
    draw = random.Random(seed)
    items = range(1, ITEMS + 1)
    weights = list(accumulate(1 / rank for rank in items))
    with open(path, "w", encoding="ascii") as file:
        for user in range(1, USERS + 1):
            length = SHORTEST + int(draw.expovariate(1 / (INTERACTIONS / USERS - SHORTEST)))
            drawn = dict.fromkeys(draw.choices(items, cum_weights=weights, k=min(length, ITEMS // 4)))
            file.write(" ".join(map(str, [user, *drawn])) + "\n")
