"""Users of MovieLens-1M's shape: as many items, histories as long, and no taste.

3,416 items and 165 of them a user on average (the data set after leaving out items with fewer than five interactions),
at least 20. A user's number of items is drawn from an exponential; items follow Zipf's law, exponent 1, and a user takes
each at most once. Fewer users than the set's 6,040 suffice: a server's speed does not depend on how many trained it.
"""

import random
from itertools import accumulate

USERS, ITEMS, MEAN, SHORTEST = 1_000, 3_416, 165, 20
# What models of this data set usually read of a history.
MAX_LEN = 200


def write_shape(path, seed=1):
    """Writes lines `user item item ...`."""
    draw = random.Random(seed)
    items = range(1, ITEMS + 1)
    weights = list(accumulate(1 / rank for rank in items))
    with open(path, "w", encoding="ascii") as file:
        for user in range(1, USERS + 1):
            length = min(SHORTEST + int(draw.expovariate(1 / (MEAN - SHORTEST))), ITEMS // 4)
            drawn = {}
            while len(drawn) < length:
                drawn.update(dict.fromkeys(draw.choices(items, cum_weights=weights, k=length)))
            file.write(" ".join(map(str, [user, *list(drawn)[:length]])) + "\n")
