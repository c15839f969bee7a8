#!/usr/bin/env python3
"""Times a step of `canet train` and the same step in PyTorch eager, on one thread each, in turns, and prints ratios.

    training.py --data data.txt [--batch-size 256] [--dropout 0.5] [--rounds 3] [--steps 20] [--json FILE]

The step is that of the preset `utility`'s first stage on sparse data. Its samples are prefixes: the loss is taken at the
newest position alone. It trains the full slice, one of its shallower exits, and one slice of each narrower width at a drawn
depth, over the whole catalogue. All but the full slice learn one half from its probabilities. Clipping and AdamW follow.

The PyTorch step is written as an engineer would write it: rows padded to the longest of their batch, attention by
`scaled_dot_product_attention`, a slice as views of the weights, gradients by autograd. Like canet's, its last block computes
the newest position alone. Both take the same samples, and batches of similar lengths. A token is an item that is read;
padding is none.

Nothing is timed before both have learnt a few of the users by heart, for which each part of the loss must agree: a wrong
step would learn faster or slower.
"""

import argparse
import bisect
import itertools
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
from torch.nn.functional import cross_entropy, dropout, embedding, gelu, layer_norm, linear, scaled_dot_product_attention

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "loadtest"))

from compare import figure, line  # noqa: E402
from machine import described  # noqa: E402

HIDDEN, LAYERS, EMBEDDING, HEADS, MAX_LEN = [16, 32, 64, 128], [1, 2], 128, 2, 50
DISTILLATION, EXIT_WEIGHT = 0.5, 0.5
# The blocks of narrower slices drop a smaller share.
NARROW = 64
# Shorter than canet's own warm-up of 200 steps, so that the check learns enough in few steps.
LEARNING_RATE, WARMUP = 1e-3, 20
# Batches that are sorted by length together.
SORTED = 16
# canet draws items of a larger catalogue.
MOST_ITEMS = 50_000
# Samples that both learn before anything is timed, about, and for how many epochs. They are few enough for the loss to fall
# far, which tells steps apart.
CHECKED_SAMPLES, CHECKED_EPOCHS = 1000, 40
# Greatest relative difference between the mean losses of the last of those epochs. Other draws change them by up to 0.005.
LOSSES_DIFFER, LAST = 0.02, 10


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", required=True, type=Path, help="one `user item item ...` line a user")
    options.add_argument("--batch-size", default=256, type=int)
    options.add_argument("--dropout", default=0.5, type=float)
    options.add_argument("--rounds", default=3, type=int)
    options.add_argument("--steps", default=20, type=int, help="of PyTorch in a round; canet runs an epoch")
    options.add_argument("--canet", default=REPOSITORY / "target" / "release" / "canet", type=Path)
    options.add_argument("--json", type=Path)
    options = options.parse_args()
    torch.set_num_threads(1)

    samples, items = read(options.data)
    if items > MOST_ITEMS:
        sys.exit(f"{items} items: canet scores the whole catalogue in a step up to {MOST_ITEMS} alone")
    losses = agree(options)
    peer = Peer(items, samples, options)
    ours, theirs = [], []
    for seed in range(1, options.rounds + 1):
        (epoch,) = canet(options, options.data, 1, seed)
        ours.append(epoch["tokens_per_second"])
        theirs.append(peer.tokens_per_second(options.steps))
    parts = {
        "canet": rounded(statistics.median(ours)),
        "peer": "PyTorch eager",
        "rate": "tokens/s",
        "theirs": rounded(statistics.median(theirs)),
        "losses_learnt": [rounded(loss["total"]) for loss in losses],
    }
    rows = [figure("training, tokens/s", [a / b for a, b in zip(ours, theirs)], "x", 1, parts)]
    for row in rows:
        print(line(row))
    if options.json:
        document = {**described(), "data": options.data.name, "items": items, "batch_size": options.batch_size}
        document.update(dropout=options.dropout, rounds=options.rounds, rows=rows)
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def rounded(value):
    return float(f"{value:.5g}")


def mean(losses):
    """Of each part."""
    return {part: statistics.mean(loss[part] for loss in losses) for part in losses[0]}


def agree(options):
    """The losses that canet and PyTorch come to on a few users; ends the script where they differ."""
    with tempfile.TemporaryDirectory() as directory:
        few, users = Path(directory) / "few.txt", options.data.read_text().splitlines(keepends=True)
        # A user has three samples fewer than items.
        ends = list(itertools.accumulate(max(0, len(user.split()) - 4) for user in users))
        few.write_text("".join(users[: bisect.bisect(ends, CHECKED_SAMPLES) + 1]))
        epochs = canet(options, few, CHECKED_EPOCHS, 1)
        samples, items = read(few)
    peer = Peer(items, samples, options, CHECKED_EPOCHS)
    ours = mean([epoch["train"] for epoch in epochs][-LAST:])
    theirs = mean([peer.epoch() for _ in range(CHECKED_EPOCHS)][-LAST:])
    for part, loss in ours.items():
        if abs(theirs[part] / loss - 1) > LOSSES_DIFFER:
            sys.exit(f"the loss `{part}` comes to {loss:.3f} in canet and {theirs[part]:.3f} in PyTorch: not one step")
    return ours, theirs


def canet(options, data, epochs, seed):
    """What `canet train` logs of each epoch."""
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model"
        command = [options.canet, "train", "--data", data, "--out", model, "--seed", seed, "--device", "cpu"]
        command += ["--threads", 1, "--epochs", epochs, "--patience", epochs]
        command += ["--stop-after", "supernet", "--router-holdout", 0]
        command += ["--max-len", MAX_LEN, "--hidden", listed(HIDDEN), "--layers", listed(LAYERS), "--heads", HEADS]
        command += ["--batch-size", options.batch_size, "--dropout", options.dropout]
        command += ["--lr", LEARNING_RATE, "--warmup-steps", WARMUP]
        # What else the data's density would decide.
        command += ["--loss-positions", 1, "--samples-per-user", "all", "--tie-embeddings", "true"]
        ran = subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if ran.returncode:
            sys.exit(f"{ran.stderr}canet ended with {ran.returncode}: {' '.join(map(str, command))}")
        log = (model / ".training" / "log.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, log) if event["event"] == "epoch"]


def listed(sizes):
    return ",".join(map(str, sizes))


def read(path):
    """Every prefix of each user's training part, all but the last two items, with the item after it; and the number of
    items."""
    items, samples = {}, []
    for user in path.read_text().splitlines():
        sequence = [items.setdefault(item, len(items) + 1) for item in user.split()[1:]]
        training = sequence[:-2] if len(sequence) > 2 else sequence
        samples += [(training[max(0, end - MAX_LEN) : end], training[end]) for end in range(1, len(training))]
    return samples, len(items)


def tokens(batch):
    return sum(len(inputs) for inputs, _ in batch)


class Peer:
    """The supernet in PyTorch, and its steps."""

    def __init__(self, items, samples, options, epochs=1):
        self.samples, self.options, self.draw = samples, options, random.Random(1)
        self.total = epochs * math.ceil(len(samples) / options.batch_size)
        torch.manual_seed(1)
        width, parameters = HIDDEN[-1], {}

        def of(name, value):
            parameters[name] = torch.nn.Parameter(value)

        def layer(name, out, inner):
            of(f"{name}.weight", torch.randn(out, inner) * 0.02)
            of(f"{name}.bias", torch.zeros(out))

        def norm(name, width):
            of(f"{name}.gain", torch.ones(width))
            of(f"{name}.bias", torch.zeros(width))

        # Row 0 is padding.
        of("items", torch.randn(items + 1, EMBEDDING) * 0.02)
        norm("items", EMBEDDING)
        layer("input", width, EMBEDDING)
        of("input.weight", torch.eye(width, EMBEDDING))
        of("distances", torch.zeros(LAYERS[-1], HEADS, MAX_LEN))
        for block in range(LAYERS[-1]):
            for part in ("query", "key", "value", "mixed"):
                layer(f"{block}.{part}", width, width)
            layer(f"{block}.inner", 4 * width, width)
            layer(f"{block}.outer", width, 4 * width)
            for part in ("attention", "ffn"):
                norm(f"{block}.{part}", width)
        self.parameters = parameters
        self.optimizer = torch.optim.AdamW(parameters.values(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
        # canet's: a warm-up, then a cosine down to a tenth.
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.rate)

    def rate(self, step):
        if step < WARMUP:
            return (step + 1) / WARMUP
        done = min(1.0, (step - WARMUP) / max(1, self.total - WARMUP))
        return 0.1 + 0.45 * (1 + math.cos(math.pi * done))

    def batches(self):
        """Of an epoch: samples of similar length share one."""
        size, batches = self.options.batch_size, []
        samples = self.draw.sample(self.samples, len(self.samples))
        for first in range(0, len(samples), SORTED * size):
            pool = sorted(samples[first : first + SORTED * size], key=lambda sample: -len(sample[0]))
            batches += [pool[at : at + size] for at in range(0, len(pool), size)]
        self.draw.shuffle(batches)
        return batches

    def tokens_per_second(self, steps):
        # A token's cost depends on the length of its row, so the timed batches are spread evenly over an epoch's lengths.
        batches = sorted(self.batches(), key=tokens)
        chosen = [batches[(2 * step + 1) * len(batches) // (2 * steps)] for step in range(steps)]
        self.step(chosen[0])
        began = time.perf_counter()
        for batch in chosen:
            self.step(batch)
        return sum(map(tokens, chosen)) / (time.perf_counter() - began)

    def epoch(self):
        """The mean of each part of the loss over an epoch."""
        return mean([self.step(batch) for batch in self.batches()])

    def step(self, batch):
        parts = self.loss(batch)
        self.optimizer.zero_grad()
        parts["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 5.0)
        self.optimizer.step()
        self.schedule.step()
        return {part: loss.item() for part, loss in parts.items()}

    def loss(self, batch):
        longest = max(len(inputs) for inputs, _ in batch)
        rows = torch.tensor([[0] * (longest - len(inputs)) + inputs for inputs, _ in batch])  # [B, L]
        targets = torch.tensor([target for _, target in batch]) - 1  # [B]

        shallower, full = self.exits(rows, HIDDEN[-1], [self.draw.choice(LAYERS[:-1]), LAYERS[-1]])
        scores = self.scores(full)
        given = cross_entropy(scores, targets)
        # What the others learn: the full slice's probabilities and the true items. [B, N]
        taught = DISTILLATION * scores.detach().softmax(1)
        taught[torch.arange(len(batch)), targets] += 1 - DISTILLATION
        shallower = cross_entropy(self.scores(shallower), taught)
        narrower = 0
        for width in HIDDEN[:-1]:
            (exit,) = self.exits(rows, width, [self.draw.choice(LAYERS)])
            narrower = narrower + cross_entropy(self.scores(exit), taught)
        total = given + EXIT_WEIGHT * shallower + narrower
        return {"full": given, "shallower": shallower, "narrower": narrower, "total": total}

    def scores(self, hidden):
        """Of every item: [B, h] -> [B, N]"""
        return linear(hidden, self.parameters["items"][1:, : hidden.shape[1]])

    def exits(self, rows, width, depths):
        """States of the newest position after each of `depths`: [B, h] each."""
        of, length, head = self.parameters, rows.shape[1], width // HEADS
        share = self.options.dropout * min(1.0, width / NARROW)
        x = layer_norm(embedding(rows, of["items"]), (EMBEDDING,), of["items.gain"], of["items.bias"], 1e-5)
        x = linear(dropout(x, self.options.dropout), of["input.weight"][:width], of["input.bias"][:width])  # [B, L, h]
        places = torch.arange(length)
        distances = places[:, None] - places
        # A padded place sees itself, or its softmax would be of nothing.
        seen = (distances >= 0) & (rows != 0)[:, None, None, :] | (distances == 0)  # [B, 1, L, L]
        exits = []
        for block in range(depths[-1]):

            def layer(part, x, out):
                return linear(x, of[f"{block}.{part}.weight"][:out, : x.shape[-1]], of[f"{block}.{part}.bias"][:out])

            def heads(part, x):
                weight = of[f"{block}.{part}.weight"].view(HEADS, -1, HIDDEN[-1])[:, :head, :width]
                bias = of[f"{block}.{part}.bias"].view(HEADS, -1)[:, :head]
                projected = linear(x, weight.reshape(width, width), bias.reshape(width))
                return projected.unflatten(2, (HEADS, head)).transpose(1, 2)  # [B, heads, L, d]

            def residual(part, x, y):
                gain, bias = (of[f"{block}.{part}.{name}"][:width] for name in ("gain", "bias"))
                return layer_norm(x + dropout(y, share), (width,), gain, bias, 1e-5)

            # The last block computes the newest position alone.
            read = x[:, -1:] if block + 1 == depths[-1] else x  # [B, Q, h]
            mask = of["distances"][block][:, distances.clamp(min=0)].masked_fill(~seen, -math.inf)  # [B, heads, L, L]
            mixed = scaled_dot_product_attention(
                heads("query", read), heads("key", x), heads("value", x),
                attn_mask=mask[:, :, -read.shape[1] :], dropout_p=share,
            )
            x = residual("attention", read, layer("mixed", mixed.transpose(1, 2).flatten(2), width))
            x = residual("ffn", x, layer("outer", gelu(layer("inner", x, 4 * width)), width))
            if block + 1 in depths:
                exits.append(x[:, -1])
        return exits


if __name__ == "__main__":
    main()
