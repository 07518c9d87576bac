//! `/metrics`: what a peer counts, as Prometheus reads it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rialto_protocol::Brain;
use rialto_protocol::event::Now;

use super::Shared;
use super::identity::{Identity, Verb};
use super::problem::Problem;

/// The format that is answered: OpenMetrics, which Prometheus and most else read.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the mesh and the process count, as the API needs it.
pub trait Metered: Send + Sync + 'static {
    fn figures(&self) -> Vec<Figure>;
}

/// One number with its labels. Figures of one name stand together, and have one help and one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// With `rialto_` before it, unless it is one that every process has; without the `_total` of counters.
    pub name: &'static str,
    pub help: &'static str,
    pub shape: Shape,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

/// How a number moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// It only rises while the process lives.
    Counter,
    Gauge,
}

impl Figure {
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, shape: Shape::Counter, labels: Vec::new(), value: value as f64 }
    }

    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { shape: Shape::Gauge, ..Self::counter(name, help, value) }
    }

    pub fn of(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

pub async fn metrics(api: Shared, identity: Identity) -> Result<Response, Problem> {
    identity.may(Verb::Look)?;
    let mut figures = api.handle.read(of_brain).await.ok_or_else(Problem::going_down)?;
    let refused = api.refused.lock().expect("no holder panics").clone();
    let name = "rialto_refused";
    let help = "What came and was refused or passed over, by kind";
    figures.extend(refused.into_iter().map(|(kind, count)| Figure::counter(name, help, count).of("kind", kind)));
    figures.extend(api.metered.figures());
    let mut response = Response::new(Body::from(text(figures)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(FORMAT));
    Ok(response)
}

/// What the brain knows.
fn of_brain(brain: &Brain, now: Now) -> Vec<Figure> {
    let status = brain.view(now).status();
    let (records, bytes) = brain.held();
    let (eager, lazy) = brain.eager_and_lazy();
    let links = |kind: &str, count: usize| {
        Figure::gauge("rialto_links", "Standing links, by what they bring", count as u64).of("kind", kind)
    };
    let tasks = |state: &str, count: u32| {
        Figure::gauge("rialto_tasks", "Tasks of the cluster, by state", count.into()).of("state", state)
    };
    vec![
        Figure::gauge("rialto_machines_alive", "Machines of the cluster that are up", status.machines_alive.into()),
        Figure::gauge("rialto_machines_known", "Machines of the cluster", status.machines_known.into()),
        tasks("running", status.tasks_running),
        tasks("pending", status.tasks_pending),
        Figure::gauge("rialto_held_back", "Replacements held back by the storm gate", status.holding_back.into()),
        Figure::gauge("rialto_ledger_records", "Records and tombstones that are held", records),
        Figure::gauge("rialto_ledger_bytes", "What they take, roughly", bytes),
        links("eager", eager),
        links("lazy", lazy),
    ]
}

/// Figures in the text format.
fn text(figures: Vec<Figure>) -> String {
    type Labels = Vec<(&'static str, String)>;
    let mut registry = Registry::default();
    for group in figures.chunk_by(|one, next| one.name == next.name) {
        let Some(first) = group.first() else { continue };
        match first.shape {
            Shape::Counter => {
                let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
                for one in group {
                    family.get_or_create(&one.labels).inc_by(one.value);
                }
                registry.register(first.name, first.help, family);
            }
            Shape::Gauge => {
                let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
                for one in group {
                    family.get_or_create(&one.labels).set(one.value);
                }
                registry.register(first.name, first.help, family);
            }
        }
    }
    let mut text = String::new();
    // A string takes whatever is written to it.
    let written = encode(&mut text, &registry);
    debug_assert!(written.is_ok());
    text
}

impl<T: Metered + ?Sized> Metered for Arc<T> {
    fn figures(&self) -> Vec<Figure> {
        self.as_ref().figures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_prometheus_wants_them() {
        let bytes = |kind: &str, count| Figure::counter("rialto_bytes", "Bytes", count).of("kind", kind);
        let figures = vec![bytes("a", 7), bytes("b\"", 8), Figure::gauge("rialto_machines", "Machines", 3)];
        let expected = "# HELP rialto_bytes Bytes.\n# TYPE rialto_bytes counter\n\
                        rialto_bytes_total{kind=\"a\"} 7.0\nrialto_bytes_total{kind=\"b\\\"\"} 8.0\n\
                        # HELP rialto_machines Machines.\n# TYPE rialto_machines gauge\nrialto_machines{} 3.0\n# EOF\n";
        let mut lines: Vec<String> = text(figures).lines().map(str::to_owned).collect();
        let mut wanted: Vec<String> = expected.lines().map(str::to_owned).collect();
        // Of one name they come in any order.
        lines.sort();
        wanted.sort();
        assert_eq!(lines, wanted);
    }
}
