//! A double of a schema registry: the routes of Confluent's that clients use, in memory, on a free loopback port.
//!
//! Ids count from 1 and versions per subject, so that every run of a test has the same. Unlike the real one it knows only Avro's rule
//! BACKWARD (and NONE), and compares schemas by their text as JSON.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// The server; it ends when this is dropped.
pub struct SchemaRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// `user:password` in base64, or a bearer token, with the word before it.
    authorization: Option<String>,
    /// By id - 1.
    schemas: Vec<Stored>,
    /// Ids by version - 1.
    subjects: BTreeMap<String, Vec<u32>>,
    /// Subjects without a compatibility rule.
    anything_goes: Vec<String>,
    /// Statuses that the next requests are answered with, whatever they ask.
    failures: VecDeque<u16>,
    requests: Vec<String>,
}

#[derive(Clone, PartialEq)]
struct Stored {
    schema: Value,
    text: String,
    kind: String,
    references: Value,
}

impl SchemaRegistry {
    /// Anybody may ask.
    pub fn start() -> SchemaRegistry {
        Self::with_authorization(None)
    }

    /// Asks for this header `Authorization`, such as `Basic dTpw` for `u:p`, or `Bearer token`.
    pub fn start_closed(authorization: &str) -> SchemaRegistry {
        Self::with_authorization(Some(authorization.to_string()))
    }

    fn with_authorization(authorization: Option<String>) -> SchemaRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(Mutex::new(State { authorization, ..State::default() }));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = {
            let (state, ended) = (state.clone(), ended.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let state = state.clone();
                    std::thread::spawn(move || serve(stream, &state));
                }
            })
        };
        SchemaRegistry { address, state, ended, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stores a schema as a registration of it would, without looking at its compatibility; gives its id.
    pub fn put(&self, subject: &str, schema: &str) -> u32 {
        self.put_as(subject, schema, "AVRO", &[])
    }

    /// The same of another kind, and with references: name, subject, version.
    pub fn put_as(&self, subject: &str, schema: &str, kind: &str, references: &[(&str, &str, u64)]) -> u32 {
        let references: Vec<Value> = references
            .iter()
            .map(|(name, subject, version)| json!({"name": name, "subject": subject, "version": version}))
            .collect();
        let parsed = serde_json::from_str(schema).unwrap_or_else(|_| schema.into());
        let stored = Stored { schema: parsed, text: schema.into(), kind: kind.into(), references: references.into() };
        self.state().store(subject, stored)
    }

    /// From now on everything is compatible in this subject.
    pub fn let_anything_into(&self, subject: &str) {
        self.state().anything_goes.push(subject.to_string());
    }

    /// The next requests are answered with these statuses.
    pub fn fail_with(&self, statuses: impl IntoIterator<Item = u16>) {
        self.state().failures.extend(statuses);
    }

    /// All requests so far: `GET /schemas/ids/1`.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// The text of a subject's newest schema.
    pub fn latest(&self, subject: &str) -> Option<String> {
        let state = self.state();
        let id = *state.subjects.get(subject)?.last()?;
        Some(state.schemas[id as usize - 1].text.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no request panics with the state in hand")
    }
}

impl Drop for SchemaRegistry {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Requests of one connection until it is closed.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
        let (method, path) = (method.to_string(), path.to_string());
        let (mut length, mut authorization) = (0, None);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            match name.to_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap_or(0),
                "authorization" => authorization = Some(value.trim().to_string()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (status, answer) = {
            let mut state = state.lock().expect("no request panics with the state in hand");
            state.requests.push(format!("{method} {path}"));
            if let Some(status) = state.failures.pop_front() {
                (status, json!({"error_code": u32::from(status) * 100 + 1, "message": "told to fail"}))
            } else if state.authorization.is_some() && state.authorization != authorization {
                (401, json!({"error_code": 401, "message": "Unauthorized"}))
            } else {
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                state.answer(&method, &path, &body)
            }
        };
        let text = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes())).is_err() {
            return;
        }
    }
}

fn error(status: u16, code: u32, message: impl Into<String>) -> (u16, Value) {
    (status, json!({"error_code": code, "message": message.into()}))
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let path = path.split('?').next().unwrap_or_default();
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (method, &parts[..]) {
            ("GET", ["schemas", "ids", id]) => {
                let stored = id.parse::<usize>().ok().and_then(|id| self.schemas.get(id.checked_sub(1)?));
                match stored {
                    Some(stored) => (200, stored.shown(json!({}))),
                    None => error(404, 40403, format!("Schema {id} not found")),
                }
            }
            ("GET", ["subjects"]) => (200, json!(self.subjects.keys().collect::<Vec<_>>())),
            ("GET", ["subjects", subject, "versions", version]) => match self.version(subject, version) {
                Ok((version, id)) => {
                    let about = json!({"subject": subject, "version": version, "id": id});
                    (200, self.schemas[id as usize - 1].shown(about))
                }
                Err(missing) => missing,
            },
            ("POST", ["subjects", subject, "versions"]) => match Stored::read(body) {
                Err(wrong) => wrong,
                Ok(new) => {
                    let before = self.subjects.get(*subject).and_then(|ids| ids.last()).copied();
                    if let Some(before) = before
                        && !self.anything_goes.iter().any(|free| free == subject)
                        && let Err(why) = can_read(&new.schema, &self.schemas[before as usize - 1].schema)
                    {
                        let message = format!(
                            "Schema being registered is incompatible with an earlier schema for subject \"{subject}\": {why}"
                        );
                        return error(409, 409, message);
                    }
                    let id = self.store(subject, new);
                    (200, json!({"id": id}))
                }
            },
            ("POST", ["subjects", subject]) => match (Stored::read(body), self.subjects.get(*subject)) {
                (Err(wrong), _) => wrong,
                (_, None) => error(404, 40401, format!("Subject '{subject}' not found.")),
                (Ok(wanted), Some(ids)) => {
                    match ids.iter().position(|id| self.schemas[*id as usize - 1].schema == wanted.schema) {
                        Some(at) => (200, wanted.shown(json!({"subject": subject, "version": at + 1, "id": ids[at]}))),
                        None => error(404, 40403, "Schema not found"),
                    }
                }
            },
            ("POST", ["compatibility", "subjects", subject, "versions", version]) => {
                match (Stored::read(body), self.version(subject, version)) {
                    (Err(wrong), _) | (_, Err(wrong)) => wrong,
                    (Ok(new), Ok((_, id))) => {
                        let checked = can_read(&new.schema, &self.schemas[id as usize - 1].schema);
                        (200, json!({"is_compatible": checked.is_ok()}))
                    }
                }
            }
            _ => (404, json!({"error_code": 404, "message": "HTTP 404 Not Found"})),
        }
    }

    fn version(&self, subject: &str, version: &str) -> Result<(usize, u32), (u16, Value)> {
        let ids =
            self.subjects.get(subject).ok_or_else(|| error(404, 40401, format!("Subject '{subject}' not found.")))?;
        let number = if version == "latest" { Some(ids.len()) } else { version.parse().ok() };
        let found = number.and_then(|number| Some((number, *ids.get(number.checked_sub(1)?)?)));
        found.ok_or_else(|| error(404, 40402, format!("Version {version} not found.")))
    }

    fn store(&mut self, subject: &str, new: Stored) -> u32 {
        let at = self.schemas.iter().position(|stored| *stored == new).unwrap_or_else(|| {
            self.schemas.push(new);
            self.schemas.len() - 1
        });
        let id = at as u32 + 1;
        let versions = self.subjects.entry(subject.to_string()).or_default();
        if !versions.contains(&id) {
            versions.push(id);
        }
        id
    }
}

impl Stored {
    fn read(body: &Value) -> Result<Stored, (u16, Value)> {
        let text = body.get("schema").and_then(Value::as_str).unwrap_or_default();
        let schema: Value = serde_json::from_str(text).map_err(|_| error(422, 42201, "Invalid schema"))?;
        if can_read(&schema, &schema).is_err() {
            return Err(error(422, 42201, "Invalid schema"));
        }
        let kind = body.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO").to_string();
        let references = body.get("references").cloned().unwrap_or_else(|| json!([]));
        Ok(Stored { schema, text: text.into(), kind, references })
    }

    fn shown(&self, mut about: Value) -> Value {
        about["schema"] = self.text.clone().into();
        // As the real one: Avro is not said.
        if self.kind != "AVRO" {
            about["schemaType"] = self.kind.clone().into();
        }
        if self.references != json!([]) {
            about["references"] = self.references.clone();
        }
        about
    }
}

fn decoded(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        match (first, more) {
            (b'%', [high, low, after @ ..]) => {
                let hex = std::str::from_utf8(&[*high, *low]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                bytes.push(hex.unwrap_or(b'?'));
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether what was written with `old` can be read with `new`: Avro's resolution, by the name of its rules.
fn can_read(new: &Value, old: &Value) -> Result<(), String> {
    let plain =
        |schema: &Value| schema.as_object().is_none_or(|object| object.len() == 1 && object.contains_key("type"));
    let unwrapped =
        |schema: &Value| if plain(schema) { schema.get("type").unwrap_or(schema).clone() } else { schema.clone() };
    let (new, old) = (unwrapped(new), unwrapped(old));
    if let Some(branches) = old.as_array() {
        return branches.iter().try_for_each(|branch| can_read(&new, branch));
    }
    if let Some(branches) = new.as_array() {
        let readable = branches.iter().any(|branch| can_read(branch, &old).is_ok());
        return if readable { Ok(()) } else { Err("MISSING_UNION_BRANCH".into()) };
    }
    let name = |schema: &Value| schema.get("type").unwrap_or(schema).as_str().unwrap_or_default().to_string();
    match (name(&new).as_str(), name(&old).as_str()) {
        ("record", "record") => {
            if new["name"] != old["name"] {
                return Err("NAME_MISMATCH".into());
            }
            let fields = |schema: &Value| schema["fields"].as_array().cloned().ok_or("TYPE_MISMATCH");
            let old = fields(&old)?;
            for field in fields(&new)? {
                match old.iter().find(|other| other["name"] == field["name"]) {
                    Some(other) => can_read(&field["type"], &other["type"])?,
                    None if field.get("default").is_some() => {}
                    None => return Err(format!("READER_FIELD_MISSING_DEFAULT_VALUE: {}", field["name"])),
                }
            }
            Ok(())
        }
        ("array", "array") => can_read(&new["items"], &old["items"]),
        ("map", "map") => can_read(&new["values"], &old["values"]),
        ("long", "int") | ("float" | "double", "int" | "long") | ("double", "float") => Ok(()),
        ("string", "bytes") | ("bytes", "string") => Ok(()),
        (new, old) if new == old && !new.is_empty() => Ok(()),
        (new, old) => Err(format!("TYPE_MISMATCH: {old} to {new}")),
    }
}
