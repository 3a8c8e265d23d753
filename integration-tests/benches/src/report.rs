//! The report: for people as Markdown, for programs as JSON.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::measure::Measured;

pub struct Report {
    head: Vec<(&'static str, String)>,
    pub sections: Vec<Section>,
}

pub struct Section {
    title: String,
    about: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    raw: Vec<Value>,
}

impl Report {
    pub fn new(events: u64, pairs: usize, rate: u64) -> Report {
        let head = vec![
            ("machine", format!("{}, {} logical cores, {}", processor(), cores(), memory())),
            ("system", said("uname", &["-sr"])),
            ("compiler", said("rustc", &["--version"])),
            ("commit", said("git", &["describe", "--always", "--dirty"])),
            ("load when it began", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()),
            ("input", format!("{events} events of the auction generator at {rate} events/s, 92 % of them bids")),
            ("runs", format!("{pairs} pairs, in turns; medians")),
        ];
        Report { head, sections: Vec::new() }
    }

    /// Writes `NAME.md`, with remarks at its end, and `NAME.json`.
    pub fn write(&self, folder: &Path, name: &str, title: &str, remarks: &str) -> Result<(), String> {
        let mut text = format!(
            "# {title}\n\nMade by `make bench`; not edited by hand: the remarks at the end are in `integration-tests/benches`.\n\n| | |\n|---|---|\n",
        );
        for (name, value) in &self.head {
            put(&mut text, format_args!("| {name} | {value} |\n"));
        }
        for section in self.sections.iter().filter(|section| !section.rows.is_empty()) {
            put(&mut text, format_args!("\n## {}\n\n{}\n\n", section.title, section.about));
            put(
                &mut text,
                format_args!("| {} |\n|{}\n", section.columns.join(" | "), "---|".repeat(section.columns.len())),
            );
            for row in &section.rows {
                put(&mut text, format_args!("| {} |\n", row.join(" | ")));
            }
        }
        text.push('\n');
        text.push_str(remarks);
        let head: Value = self.head.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let sections: Vec<_> =
            self.sections.iter().map(|section| json!({"title": section.title, "figures": section.raw})).collect();
        let raw = json!({"head": head, "sections": sections});
        let write = |name: &str, content: String| {
            std::fs::write(folder.join(name), content).map_err(|error| format!("cannot write {name}: {error}"))
        };
        write(&format!("{name}.md"), text)?;
        write(&format!("{name}.json"), format!("{raw:#}\n"))
    }
}

impl Section {
    pub fn new(title: &str, about: &str, columns: &[&str]) -> Section {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Section { title: title.into(), about: about.into(), columns, rows: Vec::new(), raw: Vec::new() }
    }

    /// CPU-seconds of two sides; their ratio should be at least `wanted`.
    pub fn compare(
        &mut self,
        name: &str,
        pairs: &[(Measured, Measured)],
        ratio: fn(&Measured, &Measured) -> f64,
        wanted: Option<f64>,
    ) {
        self.pair(name, pairs, |side| side.cpu_s, ratio, wanted, true);
    }

    pub fn compare_at_most(
        &mut self,
        name: &str,
        pairs: &[(Measured, Measured)],
        ratio: fn(&Measured, &Measured) -> f64,
        wanted: f64,
    ) {
        self.pair(name, pairs, |side| side.cpu_s, ratio, Some(wanted), false);
    }

    pub fn compare_wall(
        &mut self,
        name: &str,
        pairs: &[(Measured, Measured)],
        ratio: fn(&Measured, &Measured) -> f64,
        wanted: f64,
    ) {
        self.pair(name, pairs, |side| side.wall_s, ratio, Some(wanted), true);
    }

    pub fn compare_memory(
        &mut self,
        name: &str,
        pairs: &[(Measured, Measured)],
        ratio: fn(&Measured, &Measured) -> f64,
        wanted: f64,
    ) {
        self.pair(name, pairs, |side| side.resident_mb, ratio, Some(wanted), false);
    }

    fn pair(
        &mut self,
        name: &str,
        pairs: &[(Measured, Measured)],
        shown: fn(&Measured) -> f64,
        ratio: fn(&Measured, &Measured) -> f64,
        wanted: Option<f64>,
        at_least: bool,
    ) {
        let (left, right) =
            (spread(pairs.iter().map(|pair| shown(&pair.0))), spread(pairs.iter().map(|pair| shown(&pair.1))));
        let ratios = spread(pairs.iter().map(|pair| ratio(&pair.0, &pair.1)));
        let met = wanted.map(|wanted| if at_least { ratios.median >= wanted } else { ratios.median <= wanted });
        self.rows.push(vec![
            name.into(),
            short(left.median),
            short(right.median),
            format!("{} ({}..{})", short(ratios.median), short(ratios.min), short(ratios.max)),
            wanted.map_or(String::new(), |wanted| format!("{} {wanted}", if at_least { "≥" } else { "≤" })),
            verdict(met),
        ]);
        self.raw.push(json!({"name": name, "left": left.median, "right": right.median, "ratio": ratios.median,
            "ratio_min": ratios.min, "ratio_max": ratios.max, "wanted": wanted, "met": met}));
    }

    /// Events per CPU-second.
    pub fn rate(&mut self, name: &str, runs: &[Measured], events: f64, wanted: Option<f64>) {
        let rates = spread(runs.iter().map(|run| events / run.cpu_s));
        let met = wanted.map(|wanted| rates.median >= wanted);
        let million = |rate: f64| short(rate / 1e6);
        self.rows.push(vec![
            name.into(),
            million(rates.median),
            format!("{}..{}", million(rates.min), million(rates.max)),
            wanted.map_or(String::new(), |wanted| format!("≥ {}", million(wanted))),
            verdict(met),
        ]);
        self.raw.push(json!({"name": name, "events_per_cpu_s": rates.median, "min": rates.min, "max": rates.max, "wanted": wanted, "met": met}));
    }

    /// A figure that should be at most `wanted`.
    pub fn figure(&mut self, name: &str, values: Vec<f64>, wanted: Option<f64>) {
        self.value(name, values, wanted, false);
    }

    pub fn figure_at_least(&mut self, name: &str, values: Vec<f64>, wanted: f64) {
        self.value(name, values, Some(wanted), true);
    }

    fn value(&mut self, name: &str, values: Vec<f64>, wanted: Option<f64>, at_least: bool) {
        let values = spread(values.into_iter());
        let met = wanted.map(|wanted| if at_least { values.median >= wanted } else { values.median <= wanted });
        self.rows.push(vec![
            name.into(),
            short(values.median),
            format!("{}..{}", short(values.min), short(values.max)),
            wanted.map_or(String::new(), |wanted| format!("{} {wanted}", if at_least { "≥" } else { "≤" })),
            verdict(met),
        ]);
        self.raw.push(json!({"name": name, "median": values.median, "min": values.min, "max": values.max, "wanted": wanted, "met": met}));
    }

    /// Milliseconds on a way: the median, the 99th and the 99.9th percentile, of which the second should be at most `wanted`.
    pub fn latencies(&mut self, name: &str, [p50, p99, p999]: [f64; 3], wanted: Option<f64>) {
        let met = wanted.map(|wanted| p99 <= wanted);
        self.rows.push(vec![
            name.into(),
            short(p50),
            short(p99),
            short(p999),
            wanted.map_or(String::new(), |wanted| format!("≤ {}", short(wanted))),
            verdict(met),
        ]);
        self.raw
            .push(json!({"name": name, "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "wanted": wanted, "met": met}));
    }
}

struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// Of at least one value.
fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    Spread { median: (low + high) / 2.0, min: values[0], max: values[values.len() - 1] }
}

fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn verdict(met: Option<bool>) -> String {
    match met {
        Some(true) => "met".into(),
        Some(false) => "**missed**".into(),
        None => String::new(),
    }
}

fn put(text: &mut String, what: std::fmt::Arguments) {
    text.write_fmt(what).expect("a String takes any text");
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_else(|_| "unknown".into())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or("unknown processor".into(), |(_, name)| name.trim().to_owned())
}

fn memory() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.map_or("unknown memory".into(), |kib| format!("{:.0} GB", kib * 1_024.0 / 1e9))
}
