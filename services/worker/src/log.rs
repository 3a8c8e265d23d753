//! Logs as lines of JSON, for processes whose stderr is a file that others read.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

static LINES: AtomicBool = AtomicBool::new(false);

/// From now on everything that this process has to say goes to stderr as lines of JSON:
/// `{"time": RFC 3339, "level": "info", "target": ..., "message": ..., FIELD: ...}`.
pub fn log_lines() {
    LINES.store(true, Relaxed);
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(std::io::stderr)
        .event_format(Line)
        .init();
}

/// Says what must be seen even where nothing is logged.
pub fn tell(text: &str) {
    match LINES.load(Relaxed) {
        true => tracing::error!("{text}"),
        false => eprintln!("highwater: {text}"),
    }
}

/// Whether [`log_lines`] was called.
pub fn is_lines() -> bool {
    LINES.load(Relaxed)
}

struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let facts = event.metadata();
        let mut line = Map::new();
        line.insert("time".into(), Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true).into());
        line.insert("level".into(), facts.level().as_str().to_ascii_lowercase().into());
        line.insert("target".into(), facts.target().into());
        event.record(&mut Fields(&mut line));
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }
}
