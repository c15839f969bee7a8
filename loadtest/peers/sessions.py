"""Requests of users who return, as `canet bench --workload sessions` draws them."""

import random

# The most users who may return.
ACTIVE = 1000
# The most items that a user brings back.
NEW_ITEMS = 3


def session_histories(sequences, count, returning=0.8, seed=1):
    """What the users of `count` requests know, each a beginning of one of the sequences.

    A share `returning` of the requests is of users who return with one to three new items; each of the others is of a new
    user, who takes the place of one of them and enters a sequence at a random place.
    """
    draw, users, found = random.Random(seed), [], []

    def new_user():
        items = draw.choice(sequences)
        return [items, draw.randint(1, len(items))]

    for _ in range(count):
        if users and draw.random() < returning:
            user = draw.choice(users)
            known = user[1] + draw.randint(1, NEW_ITEMS)
            # At the end of a sequence somebody else comes.
            user[:] = [user[0], known] if known <= len(user[0]) else new_user()
        else:
            user = new_user()
            if len(users) < ACTIVE:
                users.append(user)
            else:
                users[draw.randrange(ACTIVE)] = user
        items, known = user
        found.append(items[:known])
    return found
