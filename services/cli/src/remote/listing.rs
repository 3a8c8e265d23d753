//! Answers of a server as a table, as JSON lines, as CSV, or as names only.

use api::{JobState, RunState};
use chrono::{DateTime, Utc};
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use serde_json::Value;

use super::arguments::Form;
use super::failure::Done;
use crate::output::{self, visible};
use crate::summary::grouped;

/// A column, and whether its values are numbers: these line up at their last digit, and lose their commas where programs read them.
pub type Column = (&'static str, bool);

/// A text column, a column of numbers.
pub const fn left(name: &'static str) -> Column {
    (name, false)
}

pub const fn right(name: &'static str) -> Column {
    (name, true)
}

/// Things of one kind.
pub struct Listing {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

/// One of them: its cells, what the API says of it, and what others call it by.
pub struct Row {
    pub cells: Vec<String>,
    pub item: Value,
    pub name: String,
}

impl Row {
    pub fn new(cells: Vec<String>, item: &impl Serialize, name: impl Into<String>) -> Row {
        Row { cells, item: json(item), name: name.into() }
    }
}

pub fn json(item: &impl Serialize) -> Value {
    serde_json::to_value(item).expect("what the API speaks of is JSON")
}

impl Listing {
    pub fn new(columns: impl Into<Vec<Column>>, rows: impl IntoIterator<Item = Row>) -> Listing {
        Listing { columns: columns.into(), rows: rows.into_iter().collect() }
    }

    pub fn print(&self, form: Form) -> Done {
        Ok(output::answer(&self.text(form, terminal())))
    }

    pub fn text(&self, form: Form, terminal: bool) -> Vec<u8> {
        let mut text = String::new();
        match form {
            Form::Table if self.rows.is_empty() => {}
            Form::Table => text = format!("{}\n", self.table(terminal)),
            Form::Json => self.rows.iter().for_each(|row| text.push_str(&format!("{}\n", row.item))),
            Form::Csv => {
                csv(self.columns.iter().map(|(name, _)| *name), &mut text);
                for row in &self.rows {
                    let cells: Vec<String> = row.cells.iter().zip(&self.columns).map(ungrouped).collect();
                    csv(cells.iter().map(String::as_str), &mut text);
                }
            }
            Form::Name => self.rows.iter().for_each(|row| text.push_str(&format!("{}\n", visible(&row.name)))),
        }
        text.into_bytes()
    }

    fn table(&self, terminal: bool) -> Table {
        let mut table = output::table(terminal);
        table.set_header(self.columns.iter().map(|(name, _)| *name));
        for row in &self.rows {
            table.add_row(row.cells.iter().map(|cell| visible(cell)));
        }
        for (column, (_, right)) in table.column_iter_mut().zip(&self.columns) {
            if *right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// One thing, field by field.
pub struct Record {
    pub fields: Vec<(Column, String)>,
    pub item: Value,
    pub name: String,
}

impl Record {
    pub fn print(&self, form: Form) -> Done {
        Ok(output::answer(self.text(form).as_bytes()))
    }

    pub fn text(&self, form: Form) -> String {
        let mut text = String::new();
        match form {
            Form::Table => {
                let width = self.fields.iter().map(|((name, _), _)| name.len()).max().unwrap_or(0);
                for ((name, _), value) in self.fields.iter().filter(|(_, value)| !value.is_empty()) {
                    let mut lines = value.lines();
                    text.push_str(&format!("{name:width$}  {}\n", visible(lines.next().unwrap_or_default())));
                    lines.for_each(|line| text.push_str(&format!("{:width$}  {}\n", "", visible(line))));
                }
            }
            Form::Json => text = format!("{}\n", self.item),
            Form::Csv => {
                csv(self.fields.iter().map(|((name, _), _)| *name), &mut text);
                let values: Vec<String> =
                    self.fields.iter().map(|(column, value)| ungrouped((value, column))).collect();
                csv(values.iter().map(String::as_str), &mut text);
            }
            Form::Name => text = format!("{}\n", visible(&self.name)),
        }
        text
    }
}

/// A number as programs read it: `1234`, not `1,234`. A text may look like one and stays as it is.
fn ungrouped((cell, (_, is_number)): (&String, &Column)) -> String {
    if *is_number { cell.replace(',', "") } else { cell.clone() }
}

/// A record of RFC 4180.
fn csv<'a>(cells: impl Iterator<Item = &'a str>, out: &mut String) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(',');
        }
        match cell.contains([',', '"', '\n', '\r']) {
            true => out.push_str(&format!("\"{}\"", cell.replace('"', "\"\""))),
            false => out.push_str(cell),
        }
    }
    out.push('\n');
}

fn terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdout())
}

/// `2026-11-21 17:30:07` in UTC, as SQL writes it.
pub fn time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

pub fn maybe_time(at: Option<DateTime<Utc>>) -> String {
    at.map(time).unwrap_or_default()
}

/// The watermark of a run: a time, or that there will be no more rows.
pub fn watermark(progress: &api::RunProgress) -> String {
    if progress.final_watermark { "end of input".into() } else { maybe_time(progress.watermark) }
}

pub fn number(number: u64) -> String {
    grouped(number)
}

/// `1.5 s`, `3 min`, `2 h`: for people.
pub fn span(ms: i64) -> String {
    match ms.max(0) {
        ms @ 0..=999 => format!("{ms} ms"),
        ms @ 1_000..=119_999 => format!("{:.1} s", ms as f64 / 1e3),
        ms @ 120_000..=7_199_999 => format!("{} min", ms / 60_000),
        ms @ 7_200_000..=172_799_999 => format!("{} h", ms / 3_600_000),
        ms => format!("{} d", ms / 86_400_000),
    }
}

/// `12.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

pub fn run_state(state: RunState) -> String {
    client::name(&state)
}

pub fn job_state(state: JobState) -> String {
    client::name(&state)
}

pub fn labels(labels: &api::Labels) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

/// Prints one thing and ends.
pub fn print_record(fields: Vec<(Column, String)>, item: &impl Serialize, name: &str, form: Form) -> Done {
    Record { fields, item: json(item), name: name.to_string() }.print(form)
}

/// Prints one thing; the command goes on.
pub fn show_record(record: &Record, form: Form) -> std::io::Result<()> {
    output::write(record.text(form).as_bytes())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    fn listing() -> Listing {
        let rows = [("a", "1"), ("b,\"c\"", "22"), ("d\u{1b}[2J", "")];
        let row = |(name, n): &(&str, &str)| Row::new(vec![name.to_string(), n.to_string()], &json!({"n": n}), *name);
        Listing::new([left("name"), right("n")], rows.iter().map(row).collect::<Vec<_>>())
    }

    #[test]
    fn a_listing_has_four_forms() {
        let text = |form| String::from_utf8(listing().text(form, false)).expect("text");
        expect![[r#"
            ┌───────┬────┐
            │ name  ┆  n │
            ╞═══════╪════╡
            │ a     ┆  1 │
            │ b,"c" ┆ 22 │
            │ d�[2J ┆    │
            └───────┴────┘
        "#]]
        .assert_eq(&text(Form::Table));
        assert_eq!(text(Form::Json), "{\"n\":\"1\"}\n{\"n\":\"22\"}\n{\"n\":\"\"}\n");
        assert_eq!(text(Form::Csv), "name,n\na,1\n\"b,\"\"c\"\"\",22\nd\u{1b}[2J,\n");
        assert_eq!(text(Form::Name), "a\nb,\"c\"\nd\u{fffd}[2J\n");
    }

    #[test]
    fn only_numbers_lose_their_commas() {
        let cells = ["1,234", "1,234", ""].map(str::to_string);
        let columns = [left("payload"), right("rows"), right("lag")];
        let record =
            Record { fields: columns.into_iter().zip(cells.clone()).collect(), item: json!({}), name: "x".into() };
        let listing = Listing::new(columns, [Row::new(cells.into(), &json!({}), "x")]);
        let expected = "payload,rows,lag\n\"1,234\",1234,\n";
        assert_eq!(record.text(Form::Csv), expected);
        assert_eq!(listing.text(Form::Csv, false), expected.as_bytes());
    }

    #[test]
    fn figures_are_for_people() {
        assert_eq!([span(7), span(1500), span(600_000), span(-4)], ["7 ms", "1.5 s", "10 min", "0 ms"]);
        assert_eq!([bytes(10), bytes(1536), bytes(5 << 20), bytes(3 << 30)], ["10 B", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
