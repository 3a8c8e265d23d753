//! Prometheus: what the server counts itself, and the figures of runs, read at the time of the scrape, so that nothing stale is shown.

use std::fmt;
use std::time::Duration;

use api::IdKind;
use axum::http::{Method, StatusCode};
use control::attempt::OperatorCost;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::app::App;
use crate::attempts::CheckpointFigures;
use crate::attempts::history::{results_watermark, sum, watermark};

type RequestLabels = [(&'static str, String); 2];

pub struct ServerMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Histogram,
}

impl Default for ServerMetrics {
    fn default() -> ServerMetrics {
        ServerMetrics { requests: Family::default(), seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)) }
    }
}

impl ServerMetrics {
    pub fn request(&self, method: &Method, status: StatusCode, elapsed: Duration) {
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE") => known,
            _ => "other",
        };
        let labels = [("method", method.to_string()), ("status", status.as_u16().to_string())];
        self.requests.get_or_create(&labels).inc();
        self.seconds.observe(elapsed.as_secs_f64());
    }

    /// Everything as Prometheus reads it.
    pub fn text(&self, app: &App) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("highwater");
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register("http_request_seconds", "Time to answer a request", self.seconds.clone());
        registry.register_collector(Box::new(Live { app: app.clone() }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// The figures of active runs.
struct Live {
    app: App,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

enum Figure {
    Counter(u64),
    /// Of microseconds.
    Seconds(u64),
    Gauge(f64),
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.app.attempts.all();
        let runs: Vec<_> = all.iter().map(|(id, live)| (IdKind::Run.text(*id), live.status())).collect();
        let checkpoints: Vec<_> = all.iter().map(|(id, live)| (IdKind::Run.text(*id), live.checkpoints())).collect();
        let active = ConstGauge::new(runs.len() as i64);
        active.encode(encoder.encode_descriptor(
            "active_runs",
            "Runs that have not ended",
            None,
            active.metric_type(),
        )?)?;

        let mut family =
            |name: &str, help: &str, kind: MetricType, rows: Vec<(Vec<(&str, String)>, Figure)>| -> fmt::Result {
                if rows.is_empty() {
                    return Ok(());
                }
                let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
                for (labels, figure) in rows {
                    let labels: Vec<(String, String)> =
                        labels.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
                    let one: MetricEncoder<'_> = metric.encode_family(&labels)?;
                    match figure {
                        Figure::Counter(value) => ConstCounter::new(value).encode(one)?,
                        Figure::Seconds(us) => ConstCounter::new(us as f64 / 1e6).encode(one)?,
                        Figure::Gauge(value) => ConstGauge::new(value).encode(one)?,
                    }
                }
                Ok(())
            };
        let now_us = chrono::Utc::now().timestamp_micros();
        let per_run = |of: &dyn Fn(&control::attempt::Status) -> Option<Figure>| {
            runs.iter().filter_map(|(id, status)| Some((vec![("run", id.clone())], of(status)?))).collect::<Vec<_>>()
        };
        let lag = |mark: Option<i64>| {
            mark.filter(|mark| *mark != i64::MAX).map(|mark| Figure::Gauge(now_us.saturating_sub(mark) as f64 / 1e6))
        };
        use MetricType::{Counter as C, Gauge as G};
        family(
            "run_rows_in",
            "Rows that the sources have read",
            C,
            per_run(&|s| Some(Figure::Counter(sum(s, "source", |t| t.rows_out)))),
        )?;
        family(
            "run_rows_out",
            "Rows that the sinks have published",
            C,
            per_run(&|s| Some(Figure::Counter(sum(s, "sink", |t| t.rows_out)))),
        )?;
        family("run_epoch", "The newest complete epoch", G, per_run(&|s| Some(Figure::Gauge(s.epoch as f64))))?;
        family(
            "run_committed_epoch",
            "The newest published epoch",
            G,
            per_run(&|s| Some(Figure::Gauge(s.committed as f64))),
        )?;
        family(
            "run_watermark_lag_seconds",
            "How far results are behind the clock",
            G,
            per_run(&|s| lag(results_watermark(s))),
        )?;
        family(
            "run_resident_bytes",
            "Resident bytes of the run's processes",
            G,
            per_run(&|s| Some(Figure::Gauge(s.resident_bytes as f64))),
        )?;
        family(
            "run_cpu_seconds",
            "Processor time of the run's processes",
            C,
            per_run(&|s| Some(Figure::Seconds(s.cpu_us))),
        )?;

        let of_checkpoints = |of: &dyn Fn(&CheckpointFigures) -> Figure| {
            checkpoints.iter().map(|(id, figures)| (vec![("run", id.clone())], of(figures))).collect::<Vec<_>>()
        };
        family("run_attempts", "Attempts so far", G, of_checkpoints(&|f| Figure::Gauge(f.attempt as f64)))?;
        family(
            "run_checkpoints",
            "Checkpoints that this server has decided",
            C,
            of_checkpoints(&|f| Figure::Counter(f.count)),
        )?;
        family(
            "run_checkpoint_bytes",
            "Bytes written for those checkpoints",
            C,
            of_checkpoints(&|f| Figure::Counter(f.bytes)),
        )?;
        family(
            "run_checkpoint_seconds",
            "The newest checkpoint, from its cut until everything was written",
            G,
            of_checkpoints(&|f| Figure::Gauge(f.duration_us as f64 / 1e6)),
        )?;
        family(
            "run_decided_epoch",
            "The newest checkpoint that was decided",
            G,
            of_checkpoints(&|f| Figure::Gauge(f.decided as f64)),
        )?;
        family(
            "run_confirmed_epoch",
            "The newest checkpoint that all sinks have committed",
            G,
            of_checkpoints(&|f| Figure::Gauge(f.committed as f64)),
        )?;

        let recovery = |(id, figures): &(String, CheckpointFigures)| {
            Some((vec![("run", id.clone())], Figure::Gauge(figures.recovery_us? as f64 / 1e6)))
        };
        family(
            "run_recovery_seconds",
            "The last recovery, from the failure that was seen until the next attempt had committed a checkpoint",
            G,
            checkpoints.iter().filter_map(recovery).collect(),
        )?;
        let per_cost = |of: &dyn Fn(&OperatorCost) -> f64| {
            let rows = checkpoints.iter().flat_map(|(id, figures)| {
                let labels = |cost: &OperatorCost| vec![("run", id.clone()), ("operator", cost.operator.clone())];
                figures.operators.iter().map(move |cost| (labels(cost), Figure::Gauge(of(cost))))
            });
            rows.collect::<Vec<_>>()
        };
        family(
            "operator_checkpoint_bytes",
            "Bytes that the newest checkpoint wrote of the operator",
            G,
            per_cost(&|cost| cost.bytes as f64),
        )?;
        family(
            "operator_alignment_seconds",
            "For how long the newest checkpoint held back rows until its cut had come on all inputs",
            G,
            per_cost(&|cost| cost.alignment_us as f64 / 1e6),
        )?;
        family(
            "operator_pause_seconds",
            "The longest time for which the newest checkpoint held up the operator",
            G,
            per_cost(&|cost| cost.pause_us as f64 / 1e6),
        )?;

        let per_operator = |of: &dyn Fn(&control::attempt::OperatorStatus) -> Option<Figure>| {
            let rows = runs.iter().flat_map(|(id, status)| {
                status.operators.iter().enumerate().filter_map(move |(index, operator)| {
                    let labels = vec![
                        ("run", id.clone()),
                        ("operator", operator.operator.clone()),
                        ("stage", format!("{index}-{}", operator.kind)),
                    ];
                    Some((labels, of(operator)?))
                })
            });
            rows.collect::<Vec<_>>()
        };
        let total = |operator: &control::attempt::OperatorStatus, of: fn(&control::attempt::SubtaskStatus) -> u64| {
            operator.subtasks.iter().map(of).sum::<u64>()
        };
        family(
            "operator_rows_in",
            "Rows that came into the stage",
            C,
            per_operator(&|o| Some(Figure::Counter(total(o, |t| t.rows_in)))),
        )?;
        family(
            "operator_rows_out",
            "Rows that left the stage",
            C,
            per_operator(&|o| Some(Figure::Counter(total(o, |t| t.rows_out)))),
        )?;
        family(
            "operator_late_rows",
            "Rows late for all their windows",
            C,
            per_operator(&|o| Some(Figure::Counter(total(o, |t| t.late)))),
        )?;
        family(
            "operator_dead_letters",
            "Records that could not be used",
            C,
            per_operator(&|o| Some(Figure::Counter(total(o, |t| t.dead)))),
        )?;
        family(
            "operator_busy_seconds",
            "Time that the stage worked",
            C,
            per_operator(&|o| Some(Figure::Seconds(total(o, |t| t.busy_us)))),
        )?;
        family(
            "operator_state_bytes",
            "State of the stage",
            G,
            per_operator(&|o| Some(Figure::Gauge(total(o, |t| t.state_bytes) as f64))),
        )?;
        family(
            "operator_watermark_lag_seconds",
            "How far the stage's watermark is behind the clock",
            G,
            per_operator(&|o| lag(watermark(o))),
        )
    }
}
