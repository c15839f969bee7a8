#!/usr/bin/env python3
"""Recommends to every user of a Parquet log of interactions with Spark.

    pip install canet-*.whl 'canet[arrow]' pyspark
    spark-submit spark_rank.py --model models/ml-100k --data log/ --out recommendations/

The log has a row for each interaction, with the columns `user`, `item` and `timestamp`. The output has the columns of `canet rank
--out`: user, items, scores and route. A user without an item that the model knows gets the most popular items, and null as the route.
Every machine of the cluster must see the model and the files under the same paths.
"""

import argparse
from collections.abc import Iterator
from functools import cache

import pyarrow
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

import canet


@cache
def open_model(path: str) -> canet.Model:
    """Opens the model once in a worker process, which ranks many partitions. Spark runs a worker for each core."""
    return canet.Model(path, threads=1)


def histories(log: DataFrame) -> DataFrame:
    """A row for each user: `user`, and `history`, the list of their items, oldest first. Items of equal time are ordered by their ids."""
    events = sql.sort_array(sql.collect_list(sql.struct("timestamp", "item")))
    return log.groupBy("user").agg(events["item"].alias("history"))


def recommend(users: DataFrame, model: str, options: dict) -> DataFrame:
    """The recommendations for users with their histories."""

    def rank(batches: Iterator[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
        opened = open_model(model)
        for batch in batches:
            found = opened.recommend(batch.column("history"), **options).to_arrow()
            yield from found.add_column(0, "user", batch.column("user")).to_batches()

    user = users.schema["user"].dataType.simpleString()
    return users.mapInArrow(rank, f"user {user}, items array<string>, scores array<float>, route string")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", required=True, help="directory of the model's versions")
    arguments.add_argument("--data", required=True, help="Parquet file or directory to read")
    arguments.add_argument("--out", required=True, help="directory to write Parquet files to")
    arguments.add_argument("--k", type=int, default=10, help="number of items for each user")
    arguments.add_argument("--route", default="auto", help="auto (the router's choice), full, smallest or a route's name")
    given = arguments.parse_args()

    spark = SparkSession.builder.appName("canet").getOrCreate()
    # Workers import this file.
    spark.sparkContext.addPyFile(__file__)
    users = histories(spark.read.parquet(given.data))
    recommend(users, given.model, {"k": given.k, "route": given.route}).write.parquet(given.out)
    spark.stop()


if __name__ == "__main__":
    # Spark sends functions of this module by their name, so that `open_model` is one function for all tasks of a worker. It would
    # send a copy of whatever the main program defines.
    import spark_rank

    spark_rank.main()
