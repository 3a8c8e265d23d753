//! The table that is written: its columns as the job has them, how they differ from what the database has, and what is said to it.
//!
//! Rows are copied into the table itself where its columns have the very types that tuples are made for. Else, and with a key, they are copied
//! into a temporary table first: from there they are cast, and inserted, updated or deleted by one statement each.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType as ArrowType, SchemaRef};
use engine::RunError;
use graph::{DataType, PostgresOptions};

use crate::staged::Frame;
use crate::types::type_word;

/// What the user needs, for hints.
pub const RIGHTS: &str = "the user needs USAGE of the schema, INSERT into the table (with a primary key also SELECT, UPDATE and DELETE), TEMPORARY on the database, and for exactly-once SELECT, INSERT and UPDATE of highwater_epochs, or CREATE in the schema to make it";
/// The table of markers, in the schema of the table that is written.
const EPOCHS: &str = "highwater_epochs";
/// The temporary table. It hides no other one: it is always named with its schema.
const STAGED: &str = "pg_temp.highwater_staged";
/// Before the tuples of a binary COPY: signature, flags, bytes of an extension.
pub const COPY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Behind them.
pub const COPY_END: [u8; 2] = (-1i16).to_be_bytes();

/// A column as the job writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub arrow: ArrowType,
}

/// What is written to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The table's name in the job.
    pub shown: String,
    pub schema: String,
    pub table: String,
    pub create: bool,
    pub columns: Vec<Column>,
    /// Positions of the primary key's columns.
    pub key: Vec<usize>,
}

/// A column as the database has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    pub name: String,
    /// `int4`, `_text`, `numeric`.
    pub type_name: String,
    /// With its modifiers, for messages: `numeric(10,2)`.
    pub shown: String,
    pub modifier: i32,
    pub is_enum: bool,
    pub not_null: bool,
    /// Gets a value by itself.
    pub has_default: bool,
    /// Never takes a value.
    pub generated: bool,
}

/// How rows come into the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Straight into the table.
    direct: bool,
    /// Per column the type that it is cast to by name; others are cast as an assignment does, which loses nothing silently.
    casts: Vec<Option<String>>,
}

/// How values of one type come into a column of another.
enum Fit {
    Same,
    Assigned,
    /// By the text form of the type.
    Cast,
    No,
}

impl Target {
    /// # Errors
    /// A column of a type that PostgreSQL has no form for.
    pub fn new(node: &graph::Sink, options: &PostgresOptions, schema: &SchemaRef) -> Result<Target, RunError> {
        // The columns of the table are those of the rows by position; without a table, the rows' own.
        let name = |at: usize| match node.columns.get(at) {
            Some(column) => column.name.clone(),
            None => schema.field(at).name().clone(),
        };
        let columns: Vec<Column> = (0..schema.fields().len())
            .map(|at| Column { name: name(at), arrow: schema.field(at).data_type().clone() })
            .collect();
        let position = |name: &String| columns.iter().position(|column| column.name == *name);
        let key = node.primary_key.iter().map(|name| {
            position(name).ok_or_else(|| RunError::internal(format!("the key {name} of {} is no column", node.table)))
        });
        let key = key.collect::<Result<Vec<_>, _>>()?;
        for column in &columns {
            if column_type(&column.arrow).is_none() {
                let message = format!(
                    "cannot write table {}: column {} is {}, which PostgreSQL has no type for",
                    node.table,
                    column.name,
                    type_word(&column.arrow)
                );
                return Err(RunError::user("type_not_supported", message));
            }
        }
        let PostgresOptions { schema, table, create, .. } = options.clone();
        Ok(Target { shown: node.table.clone(), schema, table, create, columns, key })
    }

    /// Positions of the columns that are not in the key.
    pub fn others(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|at| !self.key.contains(at)).collect()
    }

    /// All positions in the order of tuples.
    fn order(&self) -> Vec<usize> {
        self.key.iter().copied().chain(self.others()).collect()
    }

    fn names(&self, positions: &[usize]) -> String {
        positions.iter().map(|at| name(&self.columns[*at].name)).collect::<Vec<_>>().join(", ")
    }

    /// `"schema"."table"`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", name(&self.schema), name(&self.table))
    }

    pub fn create_table(&self) -> String {
        let mut parts: Vec<String> =
            self.columns.iter().map(|column| format!("{} {}", name(&column.name), typed(&column.arrow))).collect();
        if !self.key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", self.names(&self.key)));
        }
        format!("CREATE TABLE IF NOT EXISTS {} ({})", self.full_name(), parts.join(", "))
    }

    fn epochs(&self) -> String {
        format!("{}.{EPOCHS}", name(&self.schema))
    }

    /// The epoch is NULL while its first transaction is open.
    pub fn create_epochs(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (job text, sink text, epoch bigint, committed_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (job, sink))",
            self.epochs()
        )
    }

    /// Takes job and sink. From here to the end of the transaction nobody else can change the marker.
    pub fn lock_epoch(&self) -> String {
        format!("INSERT INTO {} (job, sink) VALUES ($1, $2) ON CONFLICT (job, sink) DO NOTHING", self.epochs())
    }

    pub fn read_epoch(&self) -> String {
        format!("SELECT epoch FROM {} WHERE job = $1 AND sink = $2 FOR UPDATE", self.epochs())
    }

    /// Takes job, sink and epoch.
    pub fn write_epoch(&self) -> String {
        format!("UPDATE {} SET epoch = $3, committed_at = now() WHERE job = $1 AND sink = $2", self.epochs())
    }

    /// Before the copy.
    pub fn stage(&self, way: &Way) -> Option<String> {
        let columns = self.order().into_iter().enumerate();
        let columns: Vec<String> = columns.map(|(n, at)| format!("c{n} {}", typed(&self.columns[at].arrow))).collect();
        let staged =
            format!("CREATE TEMPORARY TABLE highwater_staged (gone boolean, {}) ON COMMIT DROP", columns.join(", "));
        (!way.direct).then_some(staged)
    }

    pub fn copy(&self, way: &Way) -> String {
        match way.direct {
            true => format!("COPY {} ({}) FROM STDIN (FORMAT binary)", self.full_name(), self.names(&self.order())),
            false => format!("COPY {STAGED} FROM STDIN (FORMAT binary)"),
        }
    }

    /// Behind the copy: what brings rows from the temporary table into the table.
    pub fn merge(&self, way: &Way) -> Vec<String> {
        if way.direct {
            return vec![];
        }
        let (order, table) = (self.order(), self.full_name());
        let cell = |n: usize| match &way.casts[order[n]] {
            Some(cast) => format!("c{n}::{cast}"),
            None => format!("c{n}"),
        };
        let cells: Vec<String> = (0..order.len()).map(cell).collect();
        let insert = format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {STAGED} WHERE NOT gone",
            self.names(&order),
            cells.join(", ")
        );
        if self.key.is_empty() {
            return vec![insert];
        }
        let same: Vec<String> =
            (0..self.key.len()).map(|n| format!("t.{} = {}", name(&self.columns[order[n]].name), cell(n))).collect();
        let delete = format!("DELETE FROM {table} t USING {STAGED} s WHERE s.gone AND {}", same.join(" AND "));
        let others = self.others().into_iter().map(|at| name(&self.columns[at].name));
        let sets: Vec<String> = others.map(|name| format!("{name} = EXCLUDED.{name}")).collect();
        let action =
            if sets.is_empty() { "DO NOTHING".to_string() } else { format!("DO UPDATE SET {}", sets.join(", ")) };
        vec![delete, format!("{insert} ON CONFLICT ({}) {action}", self.names(&self.key))]
    }

    /// The tuple of a frame, as the copy takes it.
    pub fn tuple(&self, way: &Way, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let all = self.columns.len() as i16;
        if way.direct {
            out.extend(all.to_be_bytes());
        } else {
            out.extend((all + 1).to_be_bytes());
            out.extend(1i32.to_be_bytes());
            out.push(frame.value.is_none().into());
        }
        out.extend_from_slice(frame.key.unwrap_or_default());
        match frame.value {
            Some(value) => out.extend_from_slice(value),
            None => (0..self.columns.len() - self.key.len()).for_each(|_| out.extend((-1i32).to_be_bytes())),
        }
    }

    /// How rows come into a table with these columns and these unique keys, each by the names of its columns.
    ///
    /// # Errors
    /// `sink_table_mismatch` with all differences.
    pub fn way(&self, found: &[Found], unique: &[BTreeSet<String>]) -> Result<Way, RunError> {
        let mut wrong = Vec::new();
        let mut casts = Vec::new();
        let mut direct = self.key.is_empty();
        for column in &self.columns {
            let (own, mut cast) = (type_word(&column.arrow), None);
            match found.iter().find(|found| found.name == column.name) {
                None => {
                    let near = graph::suggestion(&column.name, found.iter().map(|found| found.name.as_str()));
                    wrong.push(format!("there is no column {} ({near})", column.name));
                }
                Some(found) if found.generated => {
                    wrong.push(format!("column {} is generated, and takes no value", column.name));
                }
                Some(found) => match fit(&column.arrow, found) {
                    Fit::Same => {}
                    Fit::Assigned => direct = false,
                    Fit::Cast => {
                        direct = false;
                        cast = Some(found.shown.clone());
                    }
                    Fit::No => {
                        let needed = column_type(&column.arrow).unwrap_or_default();
                        wrong.push(format!(
                            "column {} is {} there, and {own} here, which needs {needed}",
                            column.name, found.shown
                        ));
                    }
                },
            }
            casts.push(cast);
        }
        for found in found {
            let known = self.columns.iter().any(|column| column.name == found.name);
            if !known && found.not_null && !found.has_default {
                wrong.push(format!("column {} is NOT NULL there without a default, and is not written", found.name));
            }
        }
        let key: BTreeSet<String> = self.key.iter().map(|at| self.columns[*at].name.clone()).collect();
        if !key.is_empty() && !unique.contains(&key) {
            let names = self.names(&self.key);
            wrong.push(format!("there is no primary key, and no unique index, of exactly ({names})"));
        }
        if wrong.is_empty() {
            return Ok(Way { direct, casts });
        }
        let message = format!("table {}: {} does not fit: {}", self.shown, self.full_name(), wrong.join("; "));
        Err(RunError::user("sink_table_mismatch", message)
            .hint("change one of the two; a table that 'create' = 'true' makes has the right types"))
    }
}

/// A name as it is.
fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether values go as JSON: what has parts with names, and arrays of more than values.
pub fn is_json(arrow: &ArrowType) -> bool {
    match arrow {
        ArrowType::Map(..) | ArrowType::Struct(_) => true,
        ArrowType::List(item) => {
            is_json(item.data_type()) || matches!(item.data_type(), ArrowType::List(_) | ArrowType::Null)
        }
        _ => false,
    }
}

fn typed(arrow: &ArrowType) -> String {
    column_type(arrow).expect("the types of a target were looked at when it was made")
}

/// The type that values of an Arrow type have in PostgreSQL.
pub fn column_type(arrow: &ArrowType) -> Option<String> {
    if is_json(arrow) {
        return Some("jsonb".to_string());
    }
    if *arrow == ArrowType::Null {
        return Some("text".to_string());
    }
    if let ArrowType::List(item) = arrow {
        return column_type(item.data_type()).map(|item| format!("{item}[]"));
    }
    Some(match expr::sql_type(arrow)? {
        DataType::Boolean => "boolean".into(),
        DataType::TinyInt | DataType::SmallInt => "smallint".into(),
        DataType::Int => "integer".into(),
        DataType::BigInt => "bigint".into(),
        DataType::Float => "real".into(),
        DataType::Double => "double precision".into(),
        DataType::Decimal(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::String => "text".into(),
        DataType::Bytes => "bytea".into(),
        DataType::Date => "date".into(),
        DataType::Time => "time".into(),
        DataType::Timestamp(precision) => format!("timestamp({})", precision.min(6)),
        DataType::TimestampLtz(precision) => format!("timestamptz({})", precision.min(6)),
        DataType::Array(_) | DataType::Map(..) | DataType::Row(_) => return None,
    })
}

/// PostgreSQL's own name of the type of [`column_type`].
fn type_name(arrow: &ArrowType) -> Option<&'static str> {
    Some(match expr::sql_type(arrow)? {
        DataType::Boolean => "bool",
        DataType::TinyInt | DataType::SmallInt => "int2",
        DataType::Int => "int4",
        DataType::BigInt => "int8",
        DataType::Float => "float4",
        DataType::Double => "float8",
        DataType::Decimal(..) => "numeric",
        DataType::String => "text",
        DataType::Bytes => "bytea",
        DataType::Date => "date",
        DataType::Time => "time",
        DataType::Timestamp(_) => "timestamp",
        DataType::TimestampLtz(_) => "timestamptz",
        _ => return None,
    })
}

fn fit(arrow: &ArrowType, found: &Found) -> Fit {
    let there = found.type_name.as_str();
    if is_json(arrow) {
        return match there {
            "jsonb" => Fit::Same,
            "json" | "text" => Fit::Cast,
            _ => Fit::No,
        };
    }
    if *arrow == ArrowType::Null {
        return Fit::Cast;
    }
    if let ArrowType::List(item) = arrow {
        let own = type_name(item.data_type());
        return match there.strip_prefix('_') {
            Some(there) if own == Some(there) && found.modifier < 0 => Fit::Same,
            _ => Fit::No,
        };
    }
    let Some(own) = type_name(arrow) else { return Fit::No };
    match (own, there) {
        ("numeric", "numeric") if !holds(arrow, found.modifier) => Fit::No,
        // What has fewer digits would round.
        ("timestamp" | "timestamptz", _) if there == own && (0..digits(arrow)).contains(&found.modifier) => Fit::No,
        ("time", "time") if (0..6).contains(&found.modifier) => Fit::No,
        ("text", "varchar") => Fit::Same,
        ("text", "bpchar" | "name") => Fit::No,
        ("text", "json" | "jsonb" | "uuid" | "xml" | "inet" | "cidr" | "macaddr" | "citext") => Fit::Cast,
        ("text", _) if found.is_enum => Fit::Cast,
        ("int2", "int4" | "int8") | ("int4", "int8") | ("float4", "float8") => Fit::Assigned,
        ("int2" | "int4" | "int8", "numeric") if found.modifier < 0 => Fit::Assigned,
        _ if own == there => Fit::Same,
        _ => Fit::No,
    }
}

fn digits(arrow: &ArrowType) -> i32 {
    match expr::sql_type(arrow) {
        Some(DataType::Timestamp(precision) | DataType::TimestampLtz(precision)) => i32::from(precision.min(6)),
        _ => 0,
    }
}

/// Whether a `numeric` has room before and behind the point; without a modifier it has.
fn holds(arrow: &ArrowType, modifier: i32) -> bool {
    let ArrowType::Decimal128(precision, scale) = arrow else { return true };
    let (own_precision, own_scale) = (i32::from(*precision), i32::from(*scale));
    let Some(packed) = modifier.checked_sub(4).filter(|packed| *packed >= 0) else { return true };
    // Eleven bits with a sign since version 15.
    let (precision, scale) = ((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024);
    scale >= own_scale && precision - scale >= own_precision - own_scale
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    fn target(columns: &[&str], key: &[&str]) -> Target {
        let node = graph::Sink {
            table: "t".into(),
            connector: graph::SinkConnector::Blackhole(Default::default()),
            columns: columns.iter().map(|text| crate::testing::column(text)).collect(),
            primary_key: key.iter().map(|name| name.to_string()).collect(),
            partition_by: vec![],
            metadata: Default::default(),
        };
        let options = serde_json::json!({"table": "T\"x", "schema": "s"});
        let fields: Vec<Field> = node
            .columns
            .iter()
            .map(|column| Field::new(&column.name, expr::arrow_type(&column.data_type), true))
            .collect();
        Target::new(&node, &serde_json::from_value(options).unwrap(), &Arc::new(Schema::new(fields))).unwrap()
    }

    fn found(name: &str, type_name: &str, modifier: i32) -> Found {
        let (name, type_name) = (name.to_string(), type_name.to_string());
        Found { name, shown: type_name.clone(), type_name, modifier, ..Found::default() }
    }

    #[test]
    fn what_is_said_of_a_table_with_a_key() {
        let target = target(&["v DOUBLE", "k BIGINT", "s STRING"], &["k"]);
        assert_eq!(
            target.create_table(),
            r#"CREATE TABLE IF NOT EXISTS "s"."T""x" ("v" double precision, "k" bigint, "s" text, PRIMARY KEY ("k"))"#
        );
        let columns = [found("v", "float8", -1), found("k", "int8", -1), found("s", "uuid", -1)];
        let way = target.way(&columns, &[BTreeSet::from(["k".to_string()])]).unwrap();
        assert_eq!(
            target.merge(&way),
            [
                r#"DELETE FROM "s"."T""x" t USING pg_temp.highwater_staged s WHERE s.gone AND t."k" = c0"#,
                r#"INSERT INTO "s"."T""x" ("k", "v", "s") SELECT c0, c1, c2::uuid FROM pg_temp.highwater_staged WHERE NOT gone ON CONFLICT ("k") DO UPDATE SET "v" = EXCLUDED."v", "s" = EXCLUDED."s""#,
            ]
        );
        let mut tuple = vec![];
        target.tuple(&way, &Frame { key: Some(b"KEY"), value: None, ..Frame::default() }, &mut tuple);
        assert_eq!(tuple, b"\0\x04\0\0\0\x01\x01KEY\xff\xff\xff\xff\xff\xff\xff\xff");
    }

    #[test]
    fn all_differences_are_told_at_once() {
        let target = target(&["a INT", "b STRING", "c TIMESTAMP(3)", "d DECIMAL(10, 2)", "e BIGINT"], &["a"]);
        let numeric = |precision: i32, scale: i32| 4 + (precision << 16 | scale);
        let mut columns = vec![
            found("a", "text", -1),
            found("c", "timestamp", 0),
            found("d", "numeric", numeric(10, 1)),
            found("e", "int8", -1),
        ];
        columns[3].generated = true;
        columns.push(Found { not_null: true, ..found("f", "int4", -1) });
        columns.push(Found { not_null: true, has_default: true, ..found("g", "int4", -1) });
        let error = target.way(&columns, &[]).unwrap_err();
        assert_eq!(error.code, "sink_table_mismatch");
        for part in [
            "column a is text there, and INT here, which needs integer",
            "there is no column b",
            "column c is timestamp there",
            "column d is numeric there, and DECIMAL(10, 2) here",
            "column e is generated",
            "column f is NOT NULL there without a default",
            "no unique index, of exactly (\"a\")",
        ] {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
        assert!(!error.message.contains("column g"), "{}", error.message);
        for (modifier, fits) in [(-1, true), (numeric(10, 2), true), (numeric(12, 4), true), (numeric(11, 4), false)] {
            assert_eq!(holds(&ArrowType::Decimal128(10, 2), modifier), fits, "{modifier}");
        }
    }
}
