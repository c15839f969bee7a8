use serde_json::{Value, json};

use super::Manifest;
use canet_domain::{Flops, Route, RouteSpace};

/// A checkpoint without its weights, for programs. `canet inspect --json` prints it.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The version.
    pub version: u64,
    /// SHA-256 of the manifest.
    pub digest: &'a str,
    /// The manifest.
    pub manifest: &'a Manifest,
    /// The routes.
    pub space: &'a RouteSpace,
}

impl Description<'_> {
    /// Each route's cost of a request of `max_len` items, including the router, and its share of the full slice's cost.
    pub fn costs(&self) -> impl Iterator<Item = (Route, Flops, f64)> {
        let (shape, length) = (self.manifest.config.shape(), self.manifest.config.max_len);
        self.space.routes().map(move |route| {
            let cost = shape.request_flops(self.space, route, length);
            let flops = cost.slice + cost.router;
            (route, flops, flops as f64 / cost.full as f64)
        })
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.manifest.config.parameters().iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum()
    }

    /// The description as a JSON object.
    pub fn to_json(&self) -> Value {
        let routes: Vec<Value> = self
            .costs()
            .map(|(route, flops, share)| {
                let slice = self.space.slice(route);
                json!({
                    "route": self.space.name(route),
                    "hidden": slice.hidden,
                    "layers": slice.layers,
                    "embedding": slice.embedding,
                    "flops": flops,
                    "share": share,
                })
            })
            .collect();
        let manifest = self.manifest;
        json!({
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "created": manifest.created,
            "config": manifest.config,
            "parameters": self.parameters(),
            "data": manifest.data,
            "metrics": manifest.metrics,
            "flops": manifest.flops,
            "calibration": manifest.calibration.as_ref().map(|calibration| json!({ "points": calibration.reachable() })),
            "exclude_seen": manifest.exclude_seen,
            "training": manifest.training,
            "routes": routes,
        })
    }
}
