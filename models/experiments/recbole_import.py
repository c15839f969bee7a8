#!/usr/bin/env python3
"""Compares RecBole's SASRec with its import into canet: scores, metrics, and the speed of a full ranking.

    recbole_import.py --data data/ml-100k/ml-100k.inter [--epochs 1] [--histories 1000] [--rounds 5] [--threads 1] [--clock cpu]

Run it by the Python that `scripts/tools.py models/experiments/requirements.txt` prints, after `pip install --no-deps` of the wheel of
canet into its environment. RecBole trains for some epochs, saves the model, and computes:

- scores of all items for the validation and test histories, which `canet.Model.scores` must give to 1e-4;
- NDCG@10 and hit rate@10 of the test items, among all items, the user's own included, which `canet eval --include-seen` must give;
- the ten best items of the test histories, in batches of RecBole's size, timed in turns with `canet.Model.recommend`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch
from recbole_sasrec import LOSSES, sequences, write_interactions

import canet


def cpu_seconds():
    """Of this process."""
    return sum(os.times()[:2])


CLOCKS = {"wall": time.perf_counter, "cpu": cpu_seconds}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--epochs", type=int, default=1, help="0 leaves the network at its random start")
    options.add_argument("--histories", type=int, default=1000, help="whose scores are compared")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--clock", choices=CLOCKS, default="wall")
    options.add_argument("--canet", type=Path, default=Path(canet.__file__).parents[4] / "bin" / "canet")
    options = options.parse_args()
    by_user = sequences(options.data.resolve())
    options.canet = options.canet.resolve()
    torch.set_num_threads(options.threads)
    # RecBole takes flags from the command line, and writes into the current directory.
    sys.argv = sys.argv[:1]
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        Path("data").mkdir()
        write_interactions(by_user, Path("data/data.inter"))
        compare(options, *trained(options.epochs))
        os.chdir("/")


def trained(epochs):
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender.sasrec import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_logger, init_seed

    config = Config(model="SASRec", dataset="data", config_dict={
        **LOSSES["ce"], "data_path": os.getcwd(), "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "epochs": epochs,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["NDCG", "Hit"], "topk": [10], "valid_metric": "NDCG@10", "show_progress": False, "use_gpu": False, "seed": 1,
    })
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    dataset = create_dataset(config)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    trainer = Trainer(config, SASRec(config, train_data.dataset))
    for epoch in range(epochs):
        trainer._train_epoch(train_data, epoch)
    trainer.saved_model_file = "sasrec.pth"
    trainer._save_checkpoint(epochs, verbose=False)
    trainer.model.eval()
    return dataset, trainer, valid_data, test_data


def compare(options, dataset, trainer, valid_data, test_data):
    command(options, "import", "--recbole", "sasrec.pth", "--data", "data/data.inter", "--out", "model")
    ours, theirs = canet.Model("model", threads=options.threads), trainer.model
    tokens = dataset.field2id_token["item_id"]

    def asked(data):
        """Batches of RecBole's input, and their histories as ids."""
        batches = [batch[0] for batch in data]
        rows = [row[:length] for batch in batches for row, length in zip(batch["item_id_list"].tolist(), batch["item_length"].tolist())]
        return batches, [[str(tokens[item]) for item in row] for row in rows]

    (valid, valid_histories), (test, test_histories) = asked(valid_data), asked(test_data)
    with torch.inference_mode():
        scores = torch.cat([theirs.full_sort_predict(batch) for batch in [*valid, *test]])[: options.histories].numpy()
    columns = [ours.items.index(str(token)) for token in tokens[1:]]
    found = ours.scores((valid_histories + test_histories)[: options.histories])[:, columns]
    print(f"{len(found)} histories, {len(columns)} items: largest difference of a score {numpy.abs(found - scores[:, 1:]).max():.2g}, "
          f"scores from {scores[:, 1:].min():.2f} to {scores[:, 1:].max():.2f}")

    counted = trainer.evaluate(test_data, load_best_model=False)
    flags = ["--data", "data/data.inter", "--route", "full", "--split", "test", "--include-seen", "--json", "--device", "cpu"]
    (ran,) = json.loads(command(options, "eval", "--model", "model", *flags))["runs"]
    print(f"RecBole: {dict(counted)}; canet: NDCG@10 {ran['ndcg@10']['mean']:.4f}, HR@10 {ran['hr@10']['mean']:.4f}")

    def recbole():
        with torch.inference_mode():
            for batch in test:
                theirs.full_sort_predict(batch).topk(10, dim=1)

    timed = {"RecBole": recbole, "canet": lambda: ours.recommend(test_histories, k=10, exclude_seen=False)}
    seconds = {name: [] for name in timed}
    for place in range(options.rounds):
        for name in sorted(timed, reverse=place % 2 == 1):
            began = CLOCKS[options.clock]()
            timed[name]()
            seconds[name].append(CLOCKS[options.clock]() - began)
    ratios = [other / own for other, own in zip(seconds["RecBole"], seconds["canet"])]
    for name, values in {**seconds, "RecBole / canet": ratios}.items():
        print(f"{name}: {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    print(f"seconds by {options.clock} for {len(test_histories)} histories, {options.threads} threads")


def command(options, *arguments):
    return subprocess.run([options.canet, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
