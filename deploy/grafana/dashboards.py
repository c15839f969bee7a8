#!/usr/bin/env python3
"""Writes dashboards/*.json. A test fails where they are not what this writes, so change them here."""

import json
from pathlib import Path

DASHBOARDS = Path(__file__).resolve().parent / "dashboards"

# What every query is about; a dashboard's variables.
ON = 'job=~"$job", instance=~"$instance"'
RATE = "$__rate_interval"
# The objective, as a bucket's bound.
FAST = ', le="0.1"'
# The endpoints that recommend: a slow reload is no slow recommendation.
RECOMMENDS = ', endpoint=~"/recommend.*|.+/infer|.+/Recommend.*|.+/ModelInfer"'
ROUTED = ', reason="router"'
EXPLORED = ', reason="explored"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def rate(metric, labels=""):
    return f"rate({metric}{{{ON}{labels}}}[{RATE}])"


def increase(metric, labels=""):
    return f"increase({metric}{{{ON}{labels}}}[$__range])"


def quantile(q, metric, by="", labels=""):
    return f"histogram_quantile({q}, sum by (le{by}) ({rate(metric + '_bucket', labels)}))"


def mean(metric, by=""):
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}({rate(metric + '_sum')}) / {grouped}({rate(metric + '_count')})"


def hit_rate(by, labels=""):
    return f"sum by ({by}) ({rate('canet_hits_total', labels)}) / sum by ({by}) ({rate('canet_judged_total', labels)})"


def panel(title, kind, queries, unit="short", width=8, height=8, about="", **options):
    """`queries`: `(expression, legend)` pairs."""
    instant = kind in ("stat", "table", "bargauge", "piechart")
    targets = [
        {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
        | ({"instant": True, "range": False} if instant else {"range": True})
        | ({"format": "table"} if kind == "table" else {})
        | ({"format": "heatmap"} if kind == "heatmap" else {})
        for place, (expression, legend) in enumerate(queries)
    ]
    defaults = {"unit": unit} | options.pop("defaults", {})
    return {
        "title": title, "type": kind, "description": about, "datasource": SOURCE, "targets": targets,
        "gridPos": {"w": width, "h": height}, "options": options,
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }


def stat(title, expression, unit, about, width=6):
    return panel(title, "stat", [(expression, "")], unit, width, 5, about,
                 reduceOptions={"calcs": ["lastNotNull"]}, graphMode="area")


def stacked(title, queries, unit, about="", **sizes):
    defaults = {"custom": {"stacking": {"mode": "normal"}, "fillOpacity": 40}}
    return panel(title, "timeseries", queries, unit, about=about, defaults=defaults, **sizes)


def lines(title, queries, unit, about="", **sizes):
    return panel(title, "timeseries", queries, unit, about=about, **sizes)


SAVED = (f"1 - (sum({rate('canet_executed_flops_total')}) + sum({rate('canet_router_flops_total')})) "
         f"/ sum({rate('canet_full_flops_total')})")
SAVED_OVER_RANGE = (f"sum({increase('canet_full_flops_total')}) - sum({increase('canet_executed_flops_total')}) "
                    f"- sum({increase('canet_router_flops_total')})")
SAVED_SECONDS = f"sum({increase('canet_full_seconds_total')}) - sum({increase('canet_executed_seconds_total')})"


def compute_savings():
    return [
        stat("Saved now", SAVED, "percentunit",
             "Of the full model's floating-point operations, by routing and by the history cache; the router's own are "
             "cost. A router that ignores its input saves as much: see checkpoints for whether the answers stay the same."),
        stat("Saved in this range", SAVED_OVER_RANGE, "short", "Floating-point operations."),
        stat("Device time saved", SAVED_SECONDS, "s",
             "Seconds of an executor: what the full model is predicted to take for the same rows, from how fast its lane "
             "runs, less what they and the router were measured to take."),
        stat("Cost saved", f"({SAVED_SECONDS}) / 3600 * $cores * $price", "currencyUSD",
             "Device time x cores of an executor x price a core-hour; real only where fewer machines run for it."),
        lines("Saved over time", [(SAVED, "saved")], "percentunit", width=12),
        lines("Live accuracy, by why the route ran", [(hit_rate("reason"), "{{reason}}")], "percentunit",
              "Share of the judged answers whose first ten items had the user's next item (needs `user` in requests). Explored "
              "answers ran a random route (--explore): the router's should be above them.", width=12),
        lines("Live accuracy by route", [(hit_rate("route"), "{{route}}")], "percentunit",
              "Of all judged answers. Different routes serve different users: compare routes by explored answers.", width=12),
        lines("Live accuracy by route, of explored answers", [(hit_rate("route", EXPLORED), "{{route}}")], "percentunit",
              "Chance chose the route, so that its users are comparable.", width=12),
        lines("Floating-point operations a second",
              [(f"sum({rate('canet_full_flops_total')})", "the full model would"),
               (f"sum({rate('canet_executed_flops_total')})", "routes"),
               (f"sum({rate('canet_router_flops_total')})", "router")], "short", width=12),
        stacked("Saved a second, by route",
                [(f"sum by (route) ({rate('canet_full_flops_total')}) "
                  f"- sum by (route) ({rate('canet_executed_flops_total')})", "{{route}}")], "short", "Floating-point operations, without the router's.", width=12),
        stacked("Device time saved, by route",
                [(f"sum by (route) ({rate('canet_full_seconds_total')}) "
                  f"- sum by (route) ({rate('canet_executed_seconds_total')})", "{{route}}")], "s",
                "Seconds a second, the router's part taken off.", width=12),
        panel("Rows by route", "bargauge",
              [(f"sort_desc(sum by (route) ({increase('canet_route_requests_total')}))", "{{route}}")],
              "short", 12, 9, "Over this range.", orientation="horizontal", displayMode="basic"),
        stacked("Rows a second, by why their route ran",
                [(f"sum by (reason) ({rate('canet_route_requests_total')})", "{{reason}}")], "reqps", width=12, height=9),
    ]


def latency_by_route():
    chosen = ', route=~"$route"'
    return [
        lines("Calls: latency",
              [(quantile(q, "canet_request_duration_seconds", labels=RECOMMENDS), f"p{q * 100:g}")
               for q in (0.5, 0.95, 0.99)], "s", "Of calls that recommend."),
        stacked("Calls a second, by code",
                [(f"sum by (code) ({rate('canet_requests_total', RECOMMENDS)}) > 0", "{{code}}")], "reqps"),
        lines("Share of calls over 100 ms",
              [(f"1 - sum({rate('canet_request_duration_seconds_bucket', FAST + RECOMMENDS)}) "
                f"/ sum({rate('canet_request_duration_seconds_count', RECOMMENDS)})", "slow")], "percentunit",
              "The objective of the alerts is 1 %."),
        lines("p99 by route", [(quantile(0.99, "canet_route_latency_seconds", ", route", chosen), "{{route}}")], "s",
              "From a row's arrival to its answer.", width=12, height=10),
        lines("p50 by route", [(quantile(0.5, "canet_route_latency_seconds", ", route", chosen), "{{route}}")], "s",
              width=12, height=10),
        panel("Latency of the chosen routes", "heatmap",
              [(f"sum by (le) ({rate('canet_route_latency_seconds_bucket', chosen)})", "{{le}}")], "s", 12,
              yAxis={"unit": "s"}, calculate=False),
        lines("Forward pass by route", [(mean("canet_route_forward_seconds", "route"), "{{route}}")], "s",
              "Mean time of the batches with rows of the route.", width=12),
        stacked("Where a row's time goes", [(mean("canet_stage_duration_seconds", "stage"), "{{stage}}")], "s",
                "Mean time in each stage.", width=24),
    ]


def engine():
    return [
        lines("Rows a batch, by lane", [(mean("canet_batch_size", "lane"), "{{lane}}")], "short"),
        lines("Batches a second, by lane", [(f"sum by (lane) ({rate('canet_batch_size_count')})", "{{lane}}")], "ops"),
        stacked("Batches a second, by why they were no larger",
                [(f"sum by (reason) ({rate('canet_batch_release_total')})", "{{reason}}")], "ops",
                "full: the size limit. drained: all that waited was in."),
        stacked("Rows that wait, by lane", [(f"sum by (lane) (canet_queue_depth{{{ON}}})", "{{lane}}")], "short"),
        lines("Wait for the device, p99 by lane",
              [(quantile(0.99, "canet_queue_wait_seconds", ", lane"), "{{lane}}")], "s"),
        stacked("Rows refused or given up", [(f"sum by (reason) ({rate('canet_rejected_total')})", "{{reason}}")], "ops"),
        lines("Padding", [(mean("canet_batch_padding_ratio"), "share of the operations")], "percentunit",
              "Embedding columns that only wider rows of a batch read."),
        lines("Calls in flight", [(f"sum by (instance) (canet_requests_in_flight{{{ON}}})", "{{instance}}")], "short"),
        stacked("Answers for the answer log", [(f"sum by (outcome) ({rate('canet_answer_log_total')})", "{{outcome}}")], "ops",
                "dropped: too many waited. failed: the write did."),
        lines("Rows degraded, and cold starts",
              [(f"sum({rate('canet_degraded_total')})", "degraded"),
               (f"sum({rate('canet_cold_start_total')})", "cold start")], "ops"),
        stacked("History cache: rows a second",
                [(f"sum({rate('canet_history_cache_hits_total')})", "hit"),
                 (f"sum by (cause) ({rate('canet_history_cache_misses_total')})", "miss: {{cause}}")], "reqps",
                "A hit reuses at least half of a history. slice: the router changed the width or the embedding.", width=12),
        lines("History cache: memory", [(f"sum by (instance) (canet_history_cache_bytes{{{ON}}})", "{{instance}}")], "bytes",
              width=12),
        lines("Cores in use", [(f"sum by (instance) ({rate('process_cpu_seconds_total')})", "{{instance}}")], "short",
              width=12),
        lines("Memory", [(f"sum by (instance) (process_resident_memory_bytes{{{ON}}})", "{{instance}}")], "bytes", width=12),
    ]


def checkpoints():
    return [
        panel("What serves", "table", [(f"canet_model_info{{{ON}}}", "")], "short", 24, 6,
              "More than one digest for longer than a roll-out: a replica did not take the version."),
        panel("Reloads in this range", "stat", [(f"sum by (outcome) ({increase('canet_reload_total')})", "{{outcome}}")],
              "short", 12, 7, "A server's first load is in its first scrape, so it counts in no range."),
        lines("Seconds of a reload", [(f"sum({increase('canet_reload_duration_seconds_sum')}) "
                                      f"/ sum({increase('canet_reload_duration_seconds_count')})", "mean")], "s",
              "From its start to the swap, over this range.", width=12, height=7),
        lines("Rows by version", [(f"sum by (version) ({rate('canet_route_requests_total')})", "{{version}}")], "reqps",
              "Two versions: a candidate answers its share of the users, or a reload has just replaced one.", width=12),
        lines("Refused rows by version", [(f"sum by (version, reason) ({rate('canet_version_rejected_total')})",
                                           "{{version}} {{reason}}")], "reqps", width=12),
        lines("Agreement with the full model", [(mean("canet_shadow_overlap"), "mean")], "percentunit",
              "Share of the full model's ten best items that the routes found (needs --shadow)."),
        lines("Agreement by route", [(mean("canet_shadow_overlap", "route"), "{{route}}")], "percentunit"),
        lines("Comparisons a second",
              [(f"sum({rate('canet_shadow_overlap_count')})", "made"),
               (f"sum({rate('canet_shadow_dropped_total')})", "given up")], "ops"),
        stacked("What the router chooses",
                [(f"sum by (route) ({rate('canet_route_requests_total', ROUTED)}) / ignoring (route) group_left "
                  f"sum({rate('canet_route_requests_total', ROUTED)})", "{{route}}")], "percentunit",
                "Share of the rows; it drifts with the users and jumps with the model.", width=12),
        lines("Memory", [(f"sum by (instance) (process_resident_memory_bytes{{{ON}}})", "{{instance}}")], "bytes",
              "A reload holds two models for a while.", width=12),
    ]


def query_variable(name, label, query):
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "query": query, "refresh": 2,
        "includeAll": True, "allValue": ".+", "multi": True, "current": {"text": "All", "value": "$__all"},
    }


def constant_variable(name, label, value):
    return {"name": name, "label": label, "type": "textbox", "query": value, "current": {"text": value, "value": value}}


def dashboard(uid, title, panels, variables=()):
    x = y = tallest = 0
    for number, each in enumerate(panels, 1):
        grid = each["gridPos"]
        if x + grid["w"] > 24:
            x, y, tallest = 0, y + tallest, 0
        grid.update(x=x, y=y)
        x, tallest = x + grid["w"], max(tallest, grid["h"])
        each["id"] = number
    return {
        "uid": f"canet-{uid}", "title": f"CANet: {title}", "tags": ["canet"], "schemaVersion": 39, "editable": True,
        "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "links": [{"type": "dashboards", "tags": ["canet"], "title": "CANet", "asDropdown": True, "keepTime": True,
                   "includeVars": True}],
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            query_variable("job", "Job", "label_values(canet_model_info, job)"),
            query_variable("instance", "Server", 'label_values(canet_model_info{job=~"$job"}, instance)'),
            *variables,
        ]},
        "panels": panels,
    }


def dashboards():
    return {
        "compute-savings": dashboard("savings", "compute savings", compute_savings(), [
            constant_variable("price", "Price a core-hour", "0.04"),
            constant_variable("cores", "Cores of an executor", "1"),
        ]),
        "latency-by-route": dashboard("latency", "latency by route", latency_by_route(), [
            query_variable("route", "Route", 'label_values(canet_route_latency_seconds_count{job=~"$job"}, route)'),
        ]),
        "engine": dashboard("engine", "engine", engine()),
        "checkpoints": dashboard("checkpoints", "checkpoints", checkpoints()),
    }


def text(content):
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    DASHBOARDS.mkdir(exist_ok=True)
    for file, content in dashboards().items():
        (DASHBOARDS / f"{file}.json").write_text(text(content))
