"""The rows: data sets, and the flags of `canet train` that each is trained with."""

DATA = {
    "beauty": {
        "file": "beauty.txt",
        "sha256": "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
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

BEAUTY = ["--epochs", "40", "--batch-size", "192", "--dropout", "0.5"]
ML_1M = ["--layers", "2,4", "--epochs", "6", "--batch-size", "64", "--dropout", "0.2", "--negatives", "512",
         "--router-holdout", "4"]
ML_100K = ["--epochs", "30", "--batch-size", "32", "--dropout", "0.5"]
UNTIED = ["--tie-embeddings", "false"]


def alone(flags, hidden, layers, embedding):
    """A model of one size, trained alone."""
    return [*without(flags, "--layers"), "--hidden", hidden, "--layers", layers, "--embedding", embedding]


def epochs(flags, count):
    return [*without(flags, "--epochs"), "--epochs", str(count)]


def without(flags, name):
    if name not in flags:
        return flags
    place = flags.index(name)
    return [*flags[:place], *flags[place + 2:]]


# Half the epochs, for what is compared with each other: a row that says so continues another one's supernet.
SHORT = epochs(BEAUTY, 20)

ROWS = {
    "beauty": {"data": "beauty", "flags": BEAUTY},
    "beauty-two-widths": {"data": "beauty", "flags": [*BEAUTY, "--hidden", "96,128", "--embedding", "128"]},
    "beauty-untied": {"data": "beauty", "flags": [*BEAUTY, *UNTIED]},
    "beauty-untied-20-epochs": {"data": "beauty", "flags": [*epochs(BEAUTY, 20), *UNTIED]},
    "beauty-untied-4096-negatives": {"data": "beauty", "flags": [*epochs(BEAUTY, 20), "--negatives", "4096", *UNTIED]},
    "beauty-20-epochs": {"data": "beauty", "supernet": "beauty-20-epochs", "flags": SHORT},
    "beauty-20-epochs-uncalibrated": {
        "data": "beauty", "supernet": "beauty-20-epochs", "flags": [*SHORT, "--router-fit", "uncalibrated"],
    },
    "beauty-20-epochs-direct": {
        "data": "beauty", "supernet": "beauty-20-epochs", "flags": [*SHORT, "--router-fit", "direct"],
    },
    "beauty-20-epochs-no-distillation": {"data": "beauty", "flags": [*SHORT, "--distillation", "0"]},
    "beauty-20-epochs-depth-only": {"data": "beauty", "flags": [*SHORT, "--hidden", "128", "--embedding", "128"]},
    "beauty-20-epochs-width-only": {"data": "beauty", "flags": [*SHORT, "--layers", "8", "--embedding", "128"]},
    "beauty-20-epochs-paper": {"data": "beauty", "flags": [*SHORT, "--preset", "paper"]},
    "beauty-alone-h128-l8-e128": {"data": "beauty", "flags": alone(epochs(BEAUTY, 16), "128", "8", "128")},
    "beauty-alone-h128-l2-e128": {"data": "beauty", "flags": alone(epochs(BEAUTY, 20), "128", "2", "128")},
    "beauty-alone-h128-l2-e128-untied": {
        "data": "beauty", "flags": [*alone(epochs(BEAUTY, 20), "128", "2", "128"), *UNTIED],
    },
    "beauty-alone-h64-l2-e64": {"data": "beauty", "flags": alone(epochs(BEAUTY, 20), "64", "2", "64")},
    "ml-1m-minus2": {"data": "ml-1m-minus2", "flags": ML_1M},
    "ml-1m-minus2-holdout-12": {"data": "ml-1m-minus2", "flags": [*without(ML_1M, "--router-holdout"),
                                                                  "--router-holdout", "12"]},
    "ml-1m-minus2-tied": {"data": "ml-1m-minus2", "flags": [*ML_1M, "--tie-embeddings", "true"]},
    "ml-1m-minus2-paper": {"data": "ml-1m-minus2", "flags": [*ML_1M, "--preset", "paper"]},
    "ml-1m-minus2-alone-h64-l2-e64": {"data": "ml-1m-minus2", "flags": alone(ML_1M, "64", "2", "64")},
    "ml-100k": {"data": "ml-100k", "flags": ML_100K},
    "ml-100k-tied": {"data": "ml-100k", "flags": [*ML_100K, "--tie-embeddings", "true"]},
    "ml-100k-paper": {"data": "ml-100k", "flags": [*ML_100K, "--preset", "paper"]},
}
