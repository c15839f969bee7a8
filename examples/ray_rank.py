#!/usr/bin/env python3
"""Recommends to every user of a Parquet data set with Ray Data.

    pip install canet-*.whl 'canet[arrow]' 'ray[data]'
    ray_rank.py --model models/ml-100k --data histories/ --out recommendations/

The data set has a row for each user: `user`, and `history`, the list of their item ids, oldest first. The output has the columns of
`canet rank --out`: user, items, scores and route. A user without an item that the model knows gets the most popular items, and null as
the route. Every machine of the cluster must see the model and the files under the same paths.
"""

import argparse

import pyarrow
import ray

import canet


class Ranker:
    """An actor. It opens the model once and ranks one batch of users after the other."""

    def __init__(self, model: str, threads: int, options: dict) -> None:
        self.model = canet.Model(model, threads=threads)
        self.options = options

    def __call__(self, users: pyarrow.Table) -> pyarrow.Table:
        found = self.model.recommend(users["history"], **self.options).to_arrow()
        return found.add_column(0, "user", users["user"])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", required=True, help="directory of the model's versions")
    arguments.add_argument("--data", required=True, help="Parquet file or directory to read")
    arguments.add_argument("--out", required=True, help="directory to write Parquet files to")
    arguments.add_argument("--k", type=int, default=10, help="number of items for each user")
    arguments.add_argument("--route", default="auto", help="auto (the router's choice), full, smallest or a route's name")
    arguments.add_argument("--actors", type=int, help="most actors at a time [default: CPUs of the cluster / --threads]")
    arguments.add_argument("--threads", type=int, default=1, help="CPUs of an actor")
    arguments.add_argument("--batch-size", type=int, default=8192, help="users in a call of the model")
    arguments.add_argument("--address", help="the cluster's address [default: this machine]")
    given = arguments.parse_args()

    ray.init(given.address)
    actors = given.actors or max(1, int(ray.cluster_resources()["CPU"]) // given.threads)
    users = ray.data.read_parquet(given.data, columns=["user", "history"])
    ranked = users.map_batches(
        Ranker,
        fn_constructor_args=(given.model, given.threads, {"k": given.k, "route": given.route}),
        batch_format="pyarrow",
        batch_size=given.batch_size,
        num_cpus=given.threads,
        # The first actor leaves CPUs to those who read. Further ones start as there is work for them.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
    )
    ranked.write_parquet(given.out)


if __name__ == "__main__":
    main()
