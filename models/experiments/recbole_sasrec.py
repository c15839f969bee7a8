#!/usr/bin/env python3
"""Trains RecBole's own SASRec on a data set, and measures it as canet measures its models.

    make bench-accuracy DATA=data/ml-100k/ml-100k.inter
    make bench-accuracy DATA=data/beauty.txt ARGS="--losses ce --minutes 25 --against models/beauty"

RecBole trains with its defaults: hidden 64, 2 layers, 2 heads, dropout .5, the last 50 items of a history, every prefix a
sample, Adam with a rate of .001, batches of 2,048. Loss CE is the full softmax, loss BPR has one negative item a sample. Early
stopping watches NDCG@10 on the validation items with a patience of 10 evaluations; --minutes caps a training. Both programs
split the data alike: the last item of a user is the test item, the one before it the validation item. They differ in users of
three interactions alone, whose second item RecBole trains on.

On a CPU, this program takes a seventh of RecBole's own time on Amazon Beauty (1.25 CPU minutes an epoch, not 8.5): it skips the
padding of short histories, turns off a search for NaN in all gradients, and keeps freed memory. The same weights give the same
scores, but a training draws other dropout.

`canet import --recbole` then makes a model of the result, and `canet eval` measures it, so that one program counts both
sides. With --against, `canet report --trained-alone` compares it with a model of canet over the same users. A trained model
stays in the work directory and is not trained again. One that was stopped, or that a smaller --minutes ended, goes on after its
last whole epoch. The result is DATA-recbole-LOSS.json beside this file.

This file is not called recbole.py, because Python would then import it in place of RecBole.
"""

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
# The loss, and what RecBole draws to compare with.
LOSSES = {"ce": {"loss_type": "CE", "train_neg_sample_args": None},
          "bpr": {"loss_type": "BPR", "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}}
PATIENCE = 10
# Histories that run together on a CPU.
GROUP = 64


class TimeIsUp(Exception):
    """The training has taken the minutes that it may take."""


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help=".inter, or lines `user item item ...` or `user item`, by time")
    options.add_argument("--losses", default="ce,bpr", help="with commas: ce, bpr")
    options.add_argument("--minutes", type=float, default=60, help="cap of each training in minutes of CPU time by thread, so that a busy machine does not cut it short; the last epoch "
                         "is completed")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--threads", type=int, default=1, help="CPU threads of a training")
    options.add_argument("--against", type=Path, action="append", default=[], metavar="DIR", help="a model of canet to compare with")
    options.add_argument("--canet", type=Path, default=REPOSITORY / "target" / "release" / "canet")
    options.add_argument("--work", type=Path, default=REPOSITORY / "target" / "experiments", help="where trained models stay")
    options.add_argument("--results", type=Path, default=HERE, help="where the results are written")
    options.add_argument("--train-only", action="store_true", help="end after the trainings")
    options = options.parse_args()
    losses = options.losses.split(",")
    if unknown := [loss for loss in losses if loss not in LOSSES]:
        sys.exit(f"--losses {','.join(unknown)}: use ce or bpr")
    name = options.data.stem
    for loss in losses:
        directory = options.work / f"{name}-recbole-{loss}-{options.seed}"
        write_interactions(sequences(options.data), directory / "data" / "data.inter")
        if not is_trained(options, directory):
            train(options, loss, directory)
        if not options.train_only:
            measure(options, name, loss, directory)


def sequences(path):
    """The items of each user, oldest first. Interactions of one time keep the file's order, as in canet."""
    by_user = {}
    with path.open(encoding="utf-8") as lines:
        if path.suffix == ".inter":
            names = [column.split(":")[0] for column in next(lines).rstrip("\n").split("\t")]
            user, item, timestamp = (names.index(name) for name in ("user_id", "item_id", "timestamp"))
            for line in lines:
                fields = line.rstrip("\n").split("\t")
                by_user.setdefault(fields[user], []).append((float(fields[timestamp]), fields[item]))
            return {user: [item for _, item in sorted(rows, key=lambda row: row[0])] for user, rows in by_user.items()}
        for line in lines:
            user, *items = line.split()
            by_user.setdefault(user, []).extend(items)
    return by_user


def write_interactions(by_user, path):
    """Writes RecBole's format. The time of an interaction is its place in the user's history, so that no time occurs twice."""
    lines = ["user_id:token\titem_id:token\ttimestamp:float\n"]
    for user, items in by_user.items():
        lines.extend(f"{user}\t{item}\t{place}\n" for place, item in enumerate(items, 1))
    text = "".join(lines)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        sys.exit(f"{path} has other interactions: move it away, or give another --work")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def is_trained(options, directory):
    """Whether the training has ended, and not by a cap below this one."""
    try:
        training = json.loads((directory / "training.json").read_text())
    except FileNotFoundError:
        return False
    return training["ended_by"] != "minutes" or training["minutes_allowed"] >= options.minutes


def train(options, loss, directory):
    """Trains RecBole's SASRec. It leaves data/data.inter, sasrec.pth and training.json in the directory."""
    by_user = sequences(options.data)
    # What a shorter training left is not this training's model.
    shutil.rmtree(directory / "model", ignore_errors=True)
    # RecBole writes logs into the current directory and takes flags from the command line.
    started_in, sys.argv = Path.cwd(), sys.argv[:1]
    os.chdir(directory)

    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender.sasrec import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_logger, init_seed

    config = Config(model="SASRec", dataset="data", config_dict={
        **LOSSES[loss], "data_path": str(Path.cwd()), "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["NDCG"], "topk": [10], "valid_metric": "NDCG@10", "stopping_step": PATIENCE, "seed": options.seed,
        "show_progress": False, "use_gpu": torch.cuda.is_available(), "checkpoint_dir": str(Path.cwd() / "saved"),
    })
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    torch.set_num_threads(options.threads)
    dataset = create_dataset(config)
    train_data, valid_data, _ = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    # RecBole looks for NaN in every gradient, because one of its models asks for that when it is imported.
    torch.autograd.set_detect_anomaly(False)
    keep_freed_memory()

    class WithoutPadding(SASRec):
        """Runs histories of similar lengths together, each group as long as its longest. The padding is on the right, where
        no position that counts reads it, so the result is the same."""

        def forward(self, item_seq, item_seq_len):
            order = item_seq_len.argsort()
            groups = order.split(len(order) if item_seq.is_cuda else GROUP)
            found = [super(WithoutPadding, self).forward(item_seq[rows, :int(item_seq_len[rows[-1]])], item_seq_len[rows])
                     for rows in groups]
            return torch.cat(found)[order.argsort()]

    model = WithoutPadding(config, train_data.dataset).to(config["device"])

    tokens = dataset.field2token_id
    seen = {tokens["user_id"][user]: torch.tensor([tokens["item_id"][item] for item in items[:-2]])
            for user, items in by_user.items()}

    class WithoutHistory(Trainer):
        """RecBole ranks a user's own items too when its model is sequential. This trainer's validation leaves them out, as
        canet does."""

        def _full_sort_batch_eval(self, batched_data):
            interaction, scores, users, items = super()._full_sort_batch_eval(batched_data)
            for row, user in enumerate(interaction["user_id"].tolist()):
                scores[row, seen[user].to(scores.device)] = float("-inf")
            return interaction, scores, users, items

    trainer = WithoutHistory(config, model)
    trainer.saved_model_file = "sasrec.pth"
    history = resumed(trainer)
    before = history[-1] if history else {"minutes": 0, "cpu_minutes": 0}
    began, cpu_began = time.monotonic(), time.process_time()

    def after_epoch(epoch, score):
        minutes = before["minutes"] + (time.monotonic() - began) / 60
        cpu_minutes = before["cpu_minutes"] + (time.process_time() - cpu_began) / 60
        history.append({"epoch": epoch + 1, "validation": round(score, 6), "minutes": minutes, "cpu_minutes": cpu_minutes})
        # The history comes first: the next start drops the epochs that the state lacks.
        Path("history.json.part").write_text(json.dumps(history) + "\n")
        os.replace("history.json.part", "history.json")
        trainer._save_checkpoint(epoch, verbose=False, saved_model_file="last.pth.part")
        os.replace("last.pth.part", "last.pth")
        print(f"{loss}: epoch {epoch + 1}, validation NDCG@10 {score:.4f}, {cpu_minutes:.1f} minutes of CPU time", flush=True)
        if cpu_minutes / options.threads >= options.minutes:
            raise TimeIsUp

    ended_by = "patience"
    try:
        if before["cpu_minutes"] / options.threads >= options.minutes:
            raise TimeIsUp
        trainer.fit(train_data, valid_data, saved=True, show_progress=False, callback_fn=after_epoch)
    except TimeIsUp:
        ended_by = "minutes"
    if len(history) == config["epochs"]:
        ended_by = "epochs"
    # RecBole saves the later one of two equal epochs.
    best = max(history, key=lambda epoch: (epoch["validation"], epoch["epoch"]))
    training = {
        "program": f"RecBole {__import__('recbole').__version__}, PyTorch {torch.__version__}",
        "trained_on": str(config["device"]),
        "threads": options.threads,
        "settings": {name: config[name] for name in (
            "hidden_size", "inner_size", "n_layers", "n_heads", "hidden_dropout_prob", "attn_dropout_prob", "hidden_act",
            "MAX_ITEM_LIST_LENGTH", "loss_type", "train_neg_sample_args", "learner", "learning_rate", "train_batch_size",
            "stopping_step", "epochs")},
        "seed": options.seed,
        "minutes_allowed": options.minutes,
        "minutes": round(history[-1]["minutes"], 1),
        "cpu_minutes": round(history[-1]["cpu_minutes"], 1),
        "ended_by": ended_by,
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "recbole_validation": best["validation"],
        "validation_by_epoch": [epoch["validation"] for epoch in history],
    }
    Path("training.json").write_text(json.dumps(training, indent=1) + "\n")
    os.chdir(started_in)


def keep_freed_memory():
    """Lets the C library keep large blocks. It would return each to the system, which clears it before the next use: a third
    of the time of a batch."""
    trim_threshold, mmap_max = -1, -4
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def resumed(trainer):
    """What the epochs so far came to. The trainer goes on after the last of them, with other random draws."""
    import torch

    if not Path("last.pth").exists():
        return []
    # RecBole's own resume_checkpoint cannot read the file with PyTorch 2.6 or later, because it holds more than tensors.
    last = torch.load("last.pth", map_location=trainer.device, weights_only=False)
    trainer.start_epoch = last["epoch"] + 1
    trainer.cur_step, trainer.best_valid_score = last["cur_step"], last["best_valid_score"]
    trainer.model.load_state_dict(last["state_dict"])
    trainer.optimizer.load_state_dict(last["optimizer"])
    history = json.loads(Path("history.json").read_text())
    return [epoch for epoch in history if epoch["epoch"] <= trainer.start_epoch]


def measure(options, name, loss, directory):
    """Imports the trained model, measures it, and writes the result beside this file."""
    model = directory / "model"
    if not (model / "1").is_dir():
        canet(options, "import", "--recbole", directory / "sasrec.pth", "--data", directory / "data" / "data.inter", "--out", model)
    measured = {split: evaluated(options, model, split) for split in ("validation", "test")}
    result = {
        "row": f"{name}-recbole-{loss}{'' if options.seed == 1 else f'-seed-{options.seed}'}",
        "data": name,
        **json.loads((directory / "training.json").read_text()),
        "users": measured["test"]["users"],
        "mflops": rounded(measured["test"]["runs"][0]["full_flops"] / 1e6),
        **{split: value(found["runs"][0]["ndcg@10"]) for split, found in measured.items()},
        "against": [compared(options, model, other, directory / f"report-{place}") for place, other in enumerate(options.against)],
    }
    (options.results / f"{result['row']}.json").write_text(json.dumps(result, indent=1) + "\n")
    test, validation = result["test"], result["validation"]
    print(f"{result['row']}: NDCG@10 {test['mean']:.4f} ±{test['se'] or 0:.4f} (validation {validation['mean']:.4f}; RecBole counted "
          f"{result['recbole_validation']:.4f}), {result['epochs']} epochs, ended by {result['ended_by']}")


def evaluated(options, model, split):
    """What `canet eval` says about the one route of the imported model."""
    return json.loads(canet(options, "eval", "--model", model, "--data", options.data, "--route", "full", "--split", split, "--json",
                            "--device", "cpu"))


def compared(options, model, other, report):
    """Paired differences over the same users: RecBole's model minus the full route of a model of canet; and minus RecBole's
    model, canet's strongest slice, its slice of RecBole's size, and its router under the greatest budget that costs no more
    FLOPs (or the smallest budget, if all cost more)."""
    found = {}
    for name, routed, alone in (("full", model, other), ("routed", other, model)):
        canet(options, "report", "--model", routed, "--trained-alone", alone, "--data", options.data, "--out", report / name,
              "--device", "cpu")
        found[name] = json.loads((report / name / "report.json").read_text())
    full, routed = found["full"]["trained_alone"][0], found["routed"]["trained_alone"][0]
    point = found["routed"]["points"][routed["point"]]
    return {
        "model": other.name,
        "full": {"route": full["slice"], "mflops": rounded(full["cost"]["flops"] / 1e6), "test": difference(full["test"])},
        "recbole_over_full": difference(full["routed_over"]),
        "strongest": {
            "route": found["routed"]["models"][0]["strongest"],
            "mflops": rounded(found["routed"]["strongest"]["cost"]["flops"] / 1e6),
            "test": difference(found["routed"]["strongest"]["test"]),
        },
        "strongest_over_recbole": difference(routed["strongest_over"]),
        "same_slice_over_recbole": routed["same_slice_over"] and difference(routed["same_slice_over"]),
        "routed": {"budget": point["budget"], "mflops": rounded(point["cost"]["flops"] / 1e6), "test": difference(point["test"])},
        "routed_over_recbole": difference(routed["routed_over"]),
    }


def canet(options, *arguments):
    command = [str(argument) for argument in (options.canet.resolve(), *arguments)]
    print("+", *command, file=sys.stderr, flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def value(found):
    return {name: rounded(found[name]) for name in ("mean", "se")}


def difference(found):
    """A mean over users with its standard error and its 95 % interval."""
    return {**value(found), "interval": found["interval"] and [rounded(bound) for bound in found["interval"]]}


def rounded(number):
    return number if number is None else float(f"{number:.5g}")


if __name__ == "__main__":
    main()
