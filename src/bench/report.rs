use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::closed_loop::Timed;
use crate::columns::wrapped;
use canet_model::Precision;

/// The measurements; the table and the JSON document are two views of them.
pub(super) struct Report {
    pub(super) model: String,
    pub(super) histories: String,
    /// One thread's peak at matrix products, in operations a second, measured in this process.
    pub(super) gemm: f64,
    /// One thread's peak at multiply-adds in registers, on backends that it limits.
    pub(super) fma: Option<f64>,
    /// The route of every request under the budget, without the router; `None` if the router decides.
    pub(super) fixed: Option<String>,
    /// Whether the model has one route, so that no router runs.
    pub(super) single_route: bool,
    pub(super) results: Vec<Measured>,
}

/// The measurement of one workload at one number of requests in flight.
pub(super) struct Measured {
    pub(super) workload: String,
    pub(super) batch: u16,
    pub(super) executors: u16,
    /// Threads of each executor.
    pub(super) threads: usize,
    pub(super) backend: &'static str,
    pub(super) precision: Precision,
    pub(super) timed: Timed,
}

impl Measured {
    /// The rate at which FLOPs were executed.
    fn gflops(&self) -> f64 {
        (self.timed.mean_flops - self.timed.mean_reused) * self.timed.requests_per_second / 1e9
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Report {
    pub(super) fn document(&self) -> String {
        let result = |measured: &Measured| -> Value {
            json!({
                "workload": measured.workload,
                "batch": measured.batch,
                "executors": measured.executors,
                "threads": measured.threads,
                "precision": measured.precision.name(),
                "backend": measured.backend,
                "requests_per_second": measured.timed.requests_per_second,
                "p50_ms": milliseconds(measured.timed.p50),
                "p99_ms": milliseconds(measured.timed.p99),
                "mean_flops": measured.timed.mean_flops,
                "gflops": measured.gflops(),
                "mean_reused_flops": measured.timed.mean_reused,
                "history_cache": measured.timed.cache.map(|cache| json!({
                    "bytes": cache.bytes,
                    "entries": cache.entries,
                    "hits": cache.hits,
                    "misses": {"history": cache.misses_of_history, "slice": cache.misses_of_slice},
                    "evictions": cache.evictions,
                })),
            })
        };
        let results: Vec<Value> = self.results.iter().map(result).collect();
        format!(
            "{:#}\n",
            json!({
                "model": self.model,
                "histories": self.histories,
                "gemm_gflops": self.gemm / 1e9,
                "fma_gflops": self.fma.map(|peak| peak / 1e9),
                "results": results,
            })
        )
    }

    /// The router's choices beside the full model, at the largest number of requests in flight that both have.
    fn answer(&self) -> Option<String> {
        let of = |name: &str| self.results.iter().filter(move |measured| measured.workload == name).collect::<Vec<_>>();
        let full = of("full");
        let pairs =
            of("own").into_iter().filter_map(|own| Some((own, full.iter().find(|full| full.batch == own.batch)?)));
        let (own, full) = pairs.max_by_key(|(own, _)| own.batch)?;
        let [routed, whole] = [own, full].map(|measured| measured.timed.requests_per_second);
        let model = match &self.fixed {
            None => "The routed model answers".to_owned(),
            Some(route) => format!("Every request under this budget runs {route}, without the router. It answers"),
        };
        Some(format!(
            "{model} {routed:.0} requests/s with {} in flight, {:.1} times as many as the router with the full model ({whole:.0}).",
            own.batch,
            routed / whole
        ))
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        if let Some(answer) = self.answer() {
            text += &format!("{}\n\n", wrapped(&answer));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "model       {}\nhistories   {}", self.model, self.histories);
        let _ = write!(text, "one thread  {:.1} GFLOP/s at matrix products", self.gemm / 1e9);
        if let Some(peak) = self.fma {
            let _ = write!(text, ", {:.1} at multiply-adds in registers", peak / 1e9);
        }
        text.push_str("\n\n");
        let heads = ["workload", "in flight", "requests/s", "p50 ms", "p99 ms", "MFLOPs", "GFLOP/s", "of peak"];
        let [workload, rest @ ..] = heads;
        let _ = write!(text, "{workload:<16}");
        for head in rest {
            let _ = write!(text, " {head:>10}");
        }
        text.push('\n');
        for measured in &self.results {
            let Measured { workload, batch, executors, threads, timed, .. } = measured;
            let peak = self.gemm * f64::from(*executors) * *threads as f64 / 1e9;
            let _ = writeln!(
                text,
                "{workload:<16} {batch:>10} {:>10.0} {:>10.3} {:>10.3} {:>10.2} {:>10.1} {:>9.0}%",
                timed.requests_per_second,
                milliseconds(timed.p50),
                milliseconds(timed.p99),
                timed.mean_flops / 1e6,
                measured.gflops(),
                100.0 * measured.gflops() / peak,
            );
        }
        for Measured { workload, batch, timed, .. } in &self.results {
            let Some(cache) = timed.cache else { continue };
            let misses = cache.misses_of_history + cache.misses_of_slice;
            let _ = write!(
                text,
                "\n{workload}, {batch} in flight: {:.0} % of the FLOPs reused, {:.0} % hits, {} histories in {:.1} MB",
                100.0 * timed.mean_reused / timed.mean_flops,
                100.0 * cache.hits as f64 / (cache.hits + misses).max(1) as f64,
                cache.entries,
                cache.bytes as f64 / 1e6,
            );
        }
        if let Some(Measured { executors, threads, backend, precision, .. }) = self.results.first() {
            let precision = precision.name();
            let router = match self.fixed {
                _ if self.single_route => "",
                None => "; the router included",
                Some(_) => "; the router included, except in own and sessions",
            };
            let _ = writeln!(text, "\n{executors} executors of {threads} threads, {backend}, {precision}{router}.");
        }
        text
    }
}
