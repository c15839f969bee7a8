"""The rows: data sets, and the flags of `canet train` that each is trained with."""

DATA = {
    "beauty": {
        "file": "beauty.txt",
        "sha256": "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
    },
    "sports": {
        "file": "sports.txt",
        "sha256": "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
    },
    "ml-1m-minus2": {
        "file": "ml-1m-minus2.txt",
        "sha256": "4a799352710b680436818cf774e7b0dbde4db34de134af3deef23758da95f833",
    },
    "ml-100k": {
        "file": "ml-100k/ml-100k.inter",
        "sha256": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    },
}


def alone(hidden, layers):
    """A slice of the default space as a model of its own."""
    return ["--hidden", hidden, "--layers", layers]


ROWS = {
    "beauty": {"data": "beauty", "flags": []},
    "beauty-windows": {"data": "beauty", "flags": ["--loss-positions", "all", "--batch-size", "192"]},
    "beauty-newest": {"data": "beauty", "flags": ["--positions", "newest"]},
    "beauty-alone-h16-l1": {"data": "beauty", "flags": alone("16", "1")},
    "beauty-alone-h32-l1": {"data": "beauty", "flags": alone("32", "1")},
    "beauty-alone-h64-l1": {"data": "beauty", "flags": alone("64", "1")},
    "beauty-alone-h64-l2": {"data": "beauty", "flags": alone("64", "2")},
    "beauty-alone-h128-l2": {"data": "beauty", "flags": alone("128", "2")},
    "beauty-paper": {"data": "beauty", "flags": ["--preset", "paper"]},
    "sports": {"data": "sports", "flags": []},
    "ml-1m-minus2": {"data": "ml-1m-minus2", "flags": []},
    "ml-1m-minus2-deeper": {"data": "ml-1m-minus2", "flags": ["--layers", "1,2,4"]},
    "ml-1m-minus2-paper": {"data": "ml-1m-minus2", "flags": ["--preset", "paper"]},
    "ml-1m-minus2-prefixes": {
        "data": "ml-1m-minus2", "flags": ["--loss-positions", "1", "--samples-per-user", "16", "--batch-size", "256"],
    },
    "ml-100k": {"data": "ml-100k", "flags": []},
}

# README.md of the repository shows these rows, one a data set.
README = [
    {"name": "Amazon Beauty", "row": "beauty",
     "slices": ["h16-l2-e16", "h32-l2-e32", "h64-l2-e64"], "budgets": [0.09, 0.15, 0.3]},
    {"name": "Amazon Sports", "row": "sports",
     "slices": ["h16-l2-e16", "h32-l1-e32", "h64-l2-e64"], "budgets": [0.09, 0.2, 0.3]},
    {"name": "MovieLens-1M", "row": "ml-1m-minus2",
     "slices": ["h16-l1-e16", "h32-l1-e32", "h64-l2-e64"], "budgets": [0.09, 0.2, 0.4]},
    {"name": "MovieLens-100K", "row": "ml-100k",
     "slices": ["h16-l1-e16", "h32-l2-e32", "h64-l2-e64"], "budgets": [0.09, 0.2]},
]
