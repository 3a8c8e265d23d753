//! Avro schemas, parsed from their JSON into an arena, so that recursive types are plain indexes.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::MAX_SCHEMA_BYTES;

/// Index into [`Schema::types`].
pub(crate) type TypeId = usize;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed {
        name: String,
        size: usize,
    },
    Enum {
        name: String,
        symbols: Vec<String>,
    },
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    /// Its fields are empty while they are being parsed.
    Record {
        name: String,
        fields: Vec<(String, TypeId)>,
    },
}

/// A meaning beyond the type. Others, and those that do not fit their type, are ignored, as the specification asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logical {
    Decimal {
        precision: u32,
        scale: u32,
    },
    Date,
    /// Since midnight, in units of `10^-digits` seconds.
    Time {
        digits: u8,
    },
    /// Since 1970; `local` ones have no zone.
    Timestamp {
        digits: u8,
        local: bool,
    },
    Uuid,
}

#[derive(Debug)]
pub(crate) struct Schema {
    types: Vec<Type>,
    logical: Vec<Option<Logical>>,
    /// Types whose values take no byte. A recursive type never is one.
    zero_width: Vec<bool>,
    root: TypeId,
}

/// Types that have no name, where they stand for themselves.
const PRIMITIVES: &[(&str, Type)] = &[
    ("null", Type::Null),
    ("boolean", Type::Boolean),
    ("int", Type::Int),
    ("long", Type::Long),
    ("float", Type::Float),
    ("double", Type::Double),
    ("bytes", Type::Bytes),
    ("string", Type::String),
];

impl Schema {
    /// Parses a schema, and before it those that it refers to (in the order in which they need each other).
    ///
    /// # Errors
    /// What is wrong with it, as a clause.
    pub(crate) fn parse(text: &str, references: &[String]) -> Result<Schema, String> {
        let mut parser = Parser { schema: Schema::empty(), named: HashMap::new() };
        for text in references.iter().map(String::as_str).chain([text]) {
            if text.len() > MAX_SCHEMA_BYTES {
                return Err(format!("its text has {} bytes; at most {MAX_SCHEMA_BYTES} are read", text.len()));
            }
            let value: Value = serde_json::from_str(text).map_err(|error| format!("its text is not JSON: {error}"))?;
            parser.schema.root = parser.parse(&value, "")?;
        }
        Ok(parser.schema)
    }

    fn empty() -> Schema {
        Schema { types: Vec::new(), logical: Vec::new(), zero_width: Vec::new(), root: 0 }
    }

    pub(crate) fn root(&self) -> TypeId {
        self.root
    }

    pub(crate) fn get(&self, id: TypeId) -> &Type {
        &self.types[id]
    }

    pub(crate) fn logical(&self, id: TypeId) -> Option<Logical> {
        self.logical[id]
    }

    pub(crate) fn is_zero_width(&self, id: TypeId) -> bool {
        self.zero_width[id]
    }

    /// The type for a message: `long`, `timestamp-millis`, `array<string>`, `record com.example.Bid`.
    pub(crate) fn describe(&self, id: TypeId) -> String {
        match self.logical[id] {
            Some(Logical::Decimal { precision, scale }) => return format!("decimal({precision}, {scale})"),
            Some(Logical::Date) => return "date".into(),
            Some(Logical::Time { digits }) => return format!("time-{}", unit(digits)),
            Some(Logical::Timestamp { digits, local }) => {
                return format!("{}timestamp-{}", if local { "local-" } else { "" }, unit(digits));
            }
            Some(Logical::Uuid) => return "uuid".into(),
            None => {}
        }
        match &self.types[id] {
            Type::Null => "null".into(),
            Type::Boolean => "boolean".into(),
            Type::Int => "int".into(),
            Type::Long => "long".into(),
            Type::Float => "float".into(),
            Type::Double => "double".into(),
            Type::Bytes => "bytes".into(),
            Type::String => "string".into(),
            Type::Fixed { name, size } => format!("fixed {name} of {size} bytes"),
            Type::Enum { name, .. } => format!("enum {name}"),
            Type::Array(item) => format!("array<{}>", self.describe(*item)),
            Type::Map(value) => format!("map<{}>", self.describe(*value)),
            Type::Union(branches) => {
                let branches: Vec<_> = branches.iter().take(8).map(|branch| self.describe(*branch)).collect();
                format!("union [{}]", branches.join(", "))
            }
            Type::Record { name, .. } => format!("record {name}"),
        }
    }
}

fn unit(digits: u8) -> &'static str {
    match digits {
        3 => "millis",
        6 => "micros",
        _ => "nanos",
    }
}

struct Parser {
    schema: Schema,
    named: HashMap<String, TypeId>,
}

impl Parser {
    /// Recursion is bounded by that of the JSON parser (128 levels).
    fn parse(&mut self, value: &Value, namespace: &str) -> Result<TypeId, String> {
        match value {
            Value::String(name) => self.reference(name, namespace),
            Value::Array(branches) => {
                let branches: Vec<_> =
                    branches.iter().map(|branch| self.parse(branch, namespace)).collect::<Result<_, _>>()?;
                if branches.iter().any(|&branch| matches!(self.schema.types[branch], Type::Union(_))) {
                    return Err("a union stands directly in a union".into());
                }
                Ok(self.add(Type::Union(branches), None))
            }
            Value::Object(object) => self.object(object, namespace),
            other => Err(format!("{} stands where a type is expected", shown(other))),
        }
    }

    fn reference(&mut self, name: &str, namespace: &str) -> Result<TypeId, String> {
        if let Some((_, primitive)) = PRIMITIVES.iter().find(|(known, _)| *known == name) {
            return Ok(self.add(primitive.clone(), None));
        }
        let found = self.named.get(&full_name(name, namespace)).or_else(|| self.named.get(name));
        found.copied().ok_or_else(|| format!("it uses the type {name:.100}, which is not defined before"))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let kind = match object.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            // {"type": {"type": ...}}: the inner one is the type.
            Some(nested @ (Value::Object(_) | Value::Array(_))) => return self.parse(nested, namespace),
            _ => return Err(format!("{} has no type", shown(&Value::Object(object.clone())))),
        };
        match kind {
            "array" | "map" => {
                let member = if kind == "array" { "items" } else { "values" };
                let inner = object.get(member).ok_or_else(|| format!("{kind} without {member}"))?;
                let inner = self.parse(inner, namespace)?;
                Ok(self.add(if kind == "array" { Type::Array(inner) } else { Type::Map(inner) }, None))
            }
            "fixed" => {
                let name = self.name(object, namespace)?;
                let size = object.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| format!("fixed {name} without a size"))?;
                let logical = logical(object, &Type::Fixed { name: String::new(), size });
                let id = self.add(Type::Fixed { name: name.clone(), size }, logical);
                self.define(name, id)
            }
            "enum" => {
                let name = self.name(object, namespace)?;
                let symbols = object.get("symbols").and_then(Value::as_array);
                let symbols =
                    symbols.and_then(|symbols| symbols.iter().map(|s| s.as_str().map(String::from)).collect());
                let symbols = symbols.ok_or_else(|| format!("enum {name} without symbols"))?;
                let id = self.add(Type::Enum { name: name.clone(), symbols }, None);
                self.define(name, id)
            }
            "record" | "error" => {
                let name = self.name(object, namespace)?;
                let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_string();
                let id = self.add(Type::Record { name: name.clone(), fields: Vec::new() }, None);
                // Known before its fields: they may be of this very type.
                self.define(name.clone(), id)?;
                let given = object.get("fields").and_then(Value::as_array);
                let given = given.ok_or_else(|| format!("record {name} without fields"))?;
                let mut fields: Vec<(String, TypeId)> = Vec::with_capacity(given.len());
                let mut seen = std::collections::HashSet::new();
                for field in given {
                    let field_name = field.get("name").and_then(Value::as_str);
                    let field_name = field_name.ok_or_else(|| format!("a field of record {name} has no name"))?;
                    if !seen.insert(field_name) {
                        return Err(format!("record {name} has two fields {field_name:.100}"));
                    }
                    let field_type = field.get("type");
                    let field_type = field_type.ok_or_else(|| format!("field {field_name:.100} has no type"))?;
                    fields.push((field_name.to_string(), self.parse(field_type, &namespace)?));
                }
                self.schema.zero_width[id] = fields.iter().all(|&(_, field)| self.schema.zero_width[field]);
                self.schema.types[id] = Type::Record { name, fields };
                Ok(id)
            }
            primitive => match PRIMITIVES.iter().find(|(known, _)| *known == primitive) {
                Some((_, primitive)) => {
                    let logical = logical(object, primitive);
                    Ok(self.add(primitive.clone(), logical))
                }
                None => self.reference(primitive, namespace),
            },
        }
    }

    fn add(&mut self, new: Type, logical: Option<Logical>) -> TypeId {
        self.schema.zero_width.push(matches!(new, Type::Null | Type::Fixed { size: 0, .. }));
        self.schema.types.push(new);
        self.schema.logical.push(logical);
        self.schema.types.len() - 1
    }

    fn name(&self, object: &Map<String, Value>, namespace: &str) -> Result<String, String> {
        let name = object.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or("a record, enum or fixed type has no name")?;
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        Ok(full_name(name, namespace))
    }

    fn define(&mut self, name: String, id: TypeId) -> Result<TypeId, String> {
        match self.named.insert(name.clone(), id) {
            None => Ok(id),
            Some(_) => Err(format!("the type {name:.100} is defined twice")),
        }
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if namespace.is_empty() || name.contains('.') { name.into() } else { format!("{namespace}.{name}") }
}

fn logical(object: &Map<String, Value>, base: &Type) -> Option<Logical> {
    let number = |member: &str| object.get(member).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    match (object.get("logicalType")?.as_str()?, base) {
        ("decimal", Type::Bytes | Type::Fixed { .. }) => {
            let (precision, scale) = (number("precision")?, number("scale").unwrap_or(0));
            (precision > 0 && scale <= precision).then_some(Logical::Decimal { precision, scale })
        }
        ("date", Type::Int) => Some(Logical::Date),
        ("time-millis", Type::Int) => Some(Logical::Time { digits: 3 }),
        ("time-micros", Type::Long) => Some(Logical::Time { digits: 6 }),
        ("timestamp-millis", Type::Long) => Some(Logical::Timestamp { digits: 3, local: false }),
        ("timestamp-micros", Type::Long) => Some(Logical::Timestamp { digits: 6, local: false }),
        ("timestamp-nanos", Type::Long) => Some(Logical::Timestamp { digits: 9, local: false }),
        ("local-timestamp-millis", Type::Long) => Some(Logical::Timestamp { digits: 3, local: true }),
        ("local-timestamp-micros", Type::Long) => Some(Logical::Timestamp { digits: 6, local: true }),
        ("local-timestamp-nanos", Type::Long) => Some(Logical::Timestamp { digits: 9, local: true }),
        ("uuid", Type::String | Type::Fixed { size: 16, .. }) => Some(Logical::Uuid),
        _ => None,
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
