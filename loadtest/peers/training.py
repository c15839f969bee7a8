#!/usr/bin/env python3
"""Times a step of `canet train` and the same step in PyTorch eager, on one thread each, in turns, and prints ratios.

    training.py --data data.txt [--batch-size 192] [--dropout 0.5] [--negatives 2048] [--rounds 3] [--steps 20] [--json FILE]

The step is that of the preset `utility`'s first stage: the full slice, one of its exits, the smallest slice and a drawn one
with its shallowest exit, each against the same drawn items, all but the full one also taught by it; then clipping and AdamW.
PyTorch has it as an engineer would write it: rows padded to the longest of their batch, attention by
`scaled_dot_product_attention`, a slice as views of the weights. Both learn from the same windows. A token is an item that is
learnt from; padding is none. Nobody's loss may leave the other's: a wrong step would be timed otherwise.
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.functional import dropout, embedding, gelu, layer_norm, linear, scaled_dot_product_attention

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "loadtest"))

from compare import figure, line  # noqa: E402
from machine import described  # noqa: E402

HIDDEN, LAYERS, EMBEDDING, HEADS, MAX_LEN = [64, 96, 128], [2, 4, 6, 8], [64, 96, 128], 4, 50
DISTILLATION, EXIT_WEIGHT = 0.5, 0.5
# Between the two losses of a first epoch, which differ by their draws alone.
LOSSES_DIFFER = 0.05


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", required=True, type=Path, help="one `user item item ...` line a user")
    options.add_argument("--batch-size", default=192, type=int)
    options.add_argument("--dropout", default=0.5, type=float)
    options.add_argument("--negatives", default=2048, type=int)
    options.add_argument("--rounds", default=3, type=int)
    options.add_argument("--steps", default=20, type=int, help="of PyTorch in a round; canet runs an epoch")
    options.add_argument("--canet", default=REPOSITORY / "target" / "release" / "canet", type=Path)
    options.add_argument("--json", type=Path)
    options = options.parse_args()
    torch.set_num_threads(1)

    windows, items = read(options.data)
    peer = Peer(items, options)
    ours, theirs, losses = [], [], []
    for seed in range(1, options.rounds + 1):
        pace, loss = canet(options, seed)
        ours.append(pace)
        losses.append(loss)
        theirs.append(peer.tokens_per_second(windows, options.steps))
    theirs_loss = peer.first_epoch(windows)
    ours_loss = statistics.mean(losses)
    if abs(theirs_loss / ours_loss - 1) > LOSSES_DIFFER:
        sys.exit(f"a first epoch's loss is {ours_loss:.3f} in canet and {theirs_loss:.3f} in PyTorch: not one step")
    parts = {
        "canet": rounded(statistics.median(ours)),
        "peer": "PyTorch eager",
        "rate": "tokens/s",
        "theirs": rounded(statistics.median(theirs)),
        "first_epochs_loss": [rounded(ours_loss), rounded(theirs_loss)],
    }
    rows = [figure("training, tokens/s", [a / b for a, b in zip(ours, theirs)], "x", 1, parts)]
    for row in rows:
        print(line(row))
    if options.json:
        document = {**described(), "data": options.data.name, "items": items, "batch_size": options.batch_size}
        document.update(dropout=options.dropout, negatives=options.negatives, rounds=options.rounds, rows=rows)
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def rounded(value):
    return float(f"{value:.5g}")


def canet(options, seed):
    """Tokens a second of an epoch of `canet train`, and its mean loss."""
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model"
        command = [options.canet, "train", "--data", options.data, "--out", model, "--epochs", 1, "--seed", seed]
        command += ["--threads", 1, "--batch-size", options.batch_size, "--dropout", options.dropout]
        command += ["--negatives", options.negatives, "--router-holdout", 0, "--max-len", MAX_LEN]
        command += ["--tie-embeddings", "false"]
        # The stages behind the first are not timed, so they need not run.
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as training:
            for said in training.stderr:
                if b"epoch 1/1" in said:
                    break
            training.kill()
        log = (model / ".training" / "log.jsonl").read_text().splitlines()
    epochs = [event for event in map(json.loads, log) if event["event"] == "epoch"]
    if not epochs:
        sys.exit(f"canet wrote no epoch to its log: {' '.join(map(str, command))}")
    return epochs[0]["tokens_per_second"], epochs[0]["train"]["total"]


def read(path):
    """Windows of each user's training part, all but the last two items, as canet cuts them; and the number of items."""
    items, windows = {}, []
    for user in path.read_text().splitlines():
        sequence = [items.setdefault(item, len(items) + 1) for item in user.split()[1:]][:-2]
        end = len(sequence) - 1
        while end > 0:
            start = max(0, end - MAX_LEN)
            windows.append(sequence[start : end + 1])
            end = start
    return windows, len(items)


class Peer:
    """The supernet in PyTorch, and its steps."""

    def __init__(self, items, options):
        self.items, self.options, self.draw = items, options, random.Random(1)
        torch.manual_seed(1)
        width, parameters = HIDDEN[-1], {}

        def of(name, *shape, std=None):
            value = torch.zeros(shape) if std is None else torch.randn(shape) * std
            parameters[name] = torch.nn.Parameter(value)

        def layer(name, out, inner):
            of(f"{name}.weight", out, inner, std=math.sqrt(2 / (out + inner)))
            of(f"{name}.bias", out)

        of("items", items + 1, EMBEDDING[-1], std=0.02)
        of("positions", MAX_LEN, EMBEDDING[-1], std=0.02)
        layer("input", width, EMBEDDING[-1])
        layer("output", items + 1, width)
        for block in range(LAYERS[-1]):
            for part in ("query", "key", "value", "mixed"):
                layer(f"{block}.{part}", width, width)
            layer(f"{block}.inner", 4 * width, width)
            layer(f"{block}.outer", width, 4 * width)
            for part in ("attention", "ffn"):
                parameters[f"{block}.{part}.residual"] = torch.nn.Parameter(torch.tensor(1e-8))
                parameters[f"{block}.{part}.gain"] = torch.nn.Parameter(torch.ones(width))
                of(f"{block}.{part}.bias", width)
        self.parameters = parameters
        decaying = [value for name, value in parameters.items() if name.endswith(".weight")]
        others = [value for name, value in parameters.items() if not name.endswith(".weight")]
        groups = [{"params": decaying, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98))
        self.steps = 0

    def tokens_per_second(self, windows, steps):
        self.draw.shuffle(windows)
        began, tokens = time.perf_counter(), 0
        for step in range(steps):
            batch = windows[step * self.options.batch_size :][: self.options.batch_size]
            tokens += sum(len(window) - 1 for window in batch)
            self.step(batch)
        return tokens / (time.perf_counter() - began)

    def first_epoch(self, windows):
        """The mean loss of a first epoch, by weights made anew."""
        self.__init__(self.items, self.options)
        self.draw.shuffle(windows)
        size = self.options.batch_size
        return statistics.mean(self.step(windows[at : at + size]) for at in range(0, len(windows), size))

    def step(self, batch):
        # canet's schedule of one epoch: 200 steps of warm-up, then a cosine.
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, self.steps / 200)
        loss = self.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 5.0)
        self.optimizer.step()
        return loss.item()

    def loss(self, batch):
        longest = max(len(window) for window in batch) - 1
        rows = torch.tensor([[0] * (longest + 1 - len(window)) + window for window in batch])
        inputs, targets = rows[:, :-1], rows[:, 1:]
        real = inputs != 0
        self.targets = targets[real]
        self.drawn = torch.randint(1, self.items + 1, (self.options.negatives,))
        self.same = self.targets[:, None] == self.drawn[None, :]

        exit = self.draw.choice(LAYERS[:-1])
        shallow, full = self.exits(inputs, real, HIDDEN[-1], EMBEDDING[-1], [exit, LAYERS[-1]])
        own, others, normaliser = self.scores(full)
        loss = (normaliser - own).mean()
        soft = [(scores - by).exp().detach() for scores, by in ((own, normaliser), (others, normaliser[:, None]))]
        loss = loss + EXIT_WEIGHT * self.taught(shallow, soft)
        loss = loss + self.taught(self.exits(inputs, real, HIDDEN[0], EMBEDDING[0], LAYERS[:1])[0], soft)
        width, depth, inner = map(self.draw.choice, (HIDDEN, LAYERS, EMBEDDING))
        exits = self.exits(inputs, real, width, inner, sorted({LAYERS[0], depth}))
        return loss + sum(self.taught(exit, soft) for exit in exits) / len(exits)

    def scores(self, hidden):
        width = hidden.shape[1]
        weight, bias = self.parameters["output.weight"], self.parameters["output.bias"]
        own = (hidden * weight[self.targets, :width]).sum(1) + bias[self.targets]
        correction = math.log(self.items / self.options.negatives)
        others = linear(hidden, weight[self.drawn, :width], bias[self.drawn] + correction)
        others = others.masked_fill(self.same, -1e9)
        return own, others, torch.logaddexp(others.logsumexp(1), own)

    def taught(self, hidden, soft):
        own, others, normaliser = self.scores(hidden)
        target = (DISTILLATION * soft[0] + 1 - DISTILLATION) * own + DISTILLATION * (soft[1] * others).sum(1)
        return (normaliser - target).mean()

    def exits(self, inputs, real, width, inner, depths):
        """States of the real places after each of `depths`: [T, width] each."""
        of, share = self.parameters, self.options.dropout
        length, head = inputs.shape[1], width // HEADS
        x = embedding(inputs, of["items"])[..., :inner] + of["positions"][-length:, :inner]
        x = linear(dropout(x, share), of["input.weight"][:width, :inner], of["input.bias"][:width])
        visible = torch.ones(length, length, dtype=torch.bool).tril() & real[:, None, None, :]
        # A padded place sees itself, or its softmax would be of nothing.
        visible = visible | torch.eye(length, dtype=torch.bool)
        exits = []
        for block in range(depths[-1]):

            def heads(part):
                weight = of[f"{block}.{part}.weight"].view(HEADS, -1, HIDDEN[-1])[:, :head, :width]
                bias = of[f"{block}.{part}.bias"].view(HEADS, -1)[:, :head]
                projected = linear(x, weight.reshape(width, width), bias.reshape(width))
                return projected.view(*x.shape[:2], HEADS, head).transpose(1, 2)

            def residual(part, x, y):
                y = x + dropout(of[f"{block}.{part}.residual"] * y, share)
                gain, bias = (of[f"{block}.{part}.{name}"][:width] for name in ("gain", "bias"))
                return layer_norm(y, (width,), gain, bias, 1e-5)

            def layer(part, x, out, inner):
                return linear(x, of[f"{block}.{part}.weight"][:out, :inner], of[f"{block}.{part}.bias"][:out])

            mixed = scaled_dot_product_attention(
                heads("query"), heads("key"), heads("value"), attn_mask=visible, dropout_p=share
            )
            x = residual("attention", x, layer("mixed", mixed.transpose(1, 2).flatten(2), width, width))
            x = residual("ffn", x, layer("outer", gelu(layer("inner", x, 4 * width, width)), width, 4 * width))
            if block + 1 in depths:
                exits.append(x[real])
        return exits


if __name__ == "__main__":
    main()
