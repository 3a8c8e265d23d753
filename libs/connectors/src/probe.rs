//! How far a connection leads: step by step, until one fails.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use engine::RunError;
use graph::AvroConfluentOptions;

use crate::http::allowed_by;
use crate::registry::Schemas;
use crate::{Egress, files, kafka, postgres};

/// A step, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub name: &'static str,
    pub ok: bool,
    /// What was found, or why not.
    pub detail: String,
    pub elapsed: Duration,
}

/// The steps of a connection of a kind (`kafka`, `postgres`, `s3`, `schema_registry`), secrets among its options, within `patience`. Blocks.
pub fn connect(kind: &str, options: &BTreeMap<String, String>, egress: &Egress, patience: Duration) -> Vec<Step> {
    let mut steps = Steps { steps: Vec::new(), ends: Instant::now() + patience };
    // The first failure has said all there is to say.
    let _ = match kind {
        "kafka" => kafka_steps(&mut steps, options, egress),
        "postgres" => postgres_steps(&mut steps, options, egress),
        "s3" => url_steps(&mut steps, options.get("s3.endpoint"), "s3.endpoint", egress),
        "schema_registry" => registry_steps(&mut steps, options, egress),
        other => steps.take::<()>("options", |_| Err(format!("there is no kind of connection '{other}'"))),
    };
    steps.steps
}

struct Steps {
    steps: Vec<Step>,
    ends: Instant,
}

/// A step has failed.
struct Failed;

impl Steps {
    fn take<T>(
        &mut self,
        name: &'static str,
        step: impl FnOnce(Duration) -> Result<(T, String), String>,
    ) -> Result<T, Failed> {
        let began = Instant::now();
        let result = step(self.ends.saturating_duration_since(began));
        let elapsed = began.elapsed();
        let (ok, detail, value) = match result {
            Ok((value, detail)) => (true, detail, Ok(value)),
            Err(detail) => (false, detail, Err(Failed)),
        };
        self.steps.push(Step { name, ok, detail, elapsed });
        value
    }
}

fn kafka_steps(steps: &mut Steps, options: &BTreeMap<String, String>, egress: &Egress) -> Result<(), Failed> {
    let client = steps.take("options", |_| {
        let client = kafka::probe_client(options, egress).map_err(said)?;
        Ok((client, "librdkafka takes the options".into()))
    })?;
    let servers = options.get("properties.bootstrap.servers").cloned().unwrap_or_default();
    for server in servers.split(',').map(str::trim).filter(|server| !server.is_empty()) {
        let (host, port) = kafka::host_and_port(server);
        resolve_and_connect(steps, host, port, egress)?;
    }
    steps.take("authenticate and read metadata", |left| {
        let (brokers, topics) = client.cluster(left).map_err(|code| {
            let context = client.context();
            let reason = context.credentials().or(context.reason()).unwrap_or_else(|| code.to_string());
            match context.refused() {
                Some(address) => format!("connecting to {address}, which a broker names, is not allowed here"),
                None => reason,
            }
        })?;
        Ok(((), format!("{brokers} brokers, {topics} topics")))
    })
}

fn postgres_steps(steps: &mut Steps, options: &BTreeMap<String, String>, egress: &Egress) -> Result<(), Failed> {
    // What is not allowed is told by the step for it.
    let server = steps.take("options", |_| {
        let server = postgres::probe_server(options, &Egress::everywhere()).map_err(said)?;
        let detail = format!("{}:{}", server.host, server.port);
        Ok((server, detail))
    })?;
    resolve_and_connect(steps, &server.host, server.port, egress)?;
    steps.take("authenticate and ask for the version", |left| {
        postgres::probe(options, egress, left).map_err(said).map(|detail| ((), detail))
    })
}

fn registry_steps(steps: &mut Steps, options: &BTreeMap<String, String>, egress: &Egress) -> Result<(), Failed> {
    url_steps(steps, options.get("avro-confluent.url"), "avro-confluent.url", egress)?;
    steps.take("authenticate and list subjects", |left| {
        let options = AvroConfluentOptions::default().filled_from(options);
        let schemas = Schemas::open(&options, allowed_by(egress)).map_err(said)?;
        let asking = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            let asked = runtime.block_on(async { tokio::time::timeout(left, schemas.subjects()).await });
            let late = |_| format!("the registry did not answer within {} s", left.as_secs());
            asked.map_err(late)?.map_err(said)
        };
        // On a thread of its own, for the caller's may be a runtime's.
        let subjects = std::thread::scope(|scope| scope.spawn(asking).join());
        let subjects = subjects.unwrap_or_else(|_| Err("asking the registry was broken off".into()))?;
        Ok(((), format!("{subjects} subjects")))
    })
}

fn url_steps(steps: &mut Steps, url: Option<&String>, option: &str, egress: &Egress) -> Result<(), Failed> {
    let (host, port) = steps.take("options", |_| {
        let url = url.ok_or_else(|| format!("the option {option} is missing"))?;
        let parsed = reqwest::Url::parse(url).map_err(|error| format!("{option} is no URL: {error}"))?;
        let host =
            parsed.host_str().ok_or_else(|| format!("{option} names no host"))?.trim_matches(['[', ']']).to_string();
        let port = parsed.port_or_known_default().ok_or_else(|| format!("{option} is neither http nor https"))?;
        Ok(((host.clone(), port), format!("{host}:{port}")))
    })?;
    resolve_and_connect(steps, &host, port, egress)
}

fn resolve_and_connect(steps: &mut Steps, host: &str, port: u16, egress: &Egress) -> Result<(), Failed> {
    // One list for all steps: a name may have other addresses when it is asked again.
    let (addresses, allowed) = steps.take("resolve", |_| {
        let found: Vec<_> = (host, port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.collect();
        let allowed = found.iter().all(|address| egress.allows(host, port, address.ip()));
        // Where nobody may connect to is not told either.
        let detail = match allowed {
            true => {
                let shown = found.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>();
                format!("{host} is {}", shown.join(", "))
            }
            false => format!("{host} is known"),
        };
        Ok(((found, allowed), detail))
    })?;
    steps.take("egress", |_| match allowed {
        true => Ok(((), format!("connecting to {host}:{port} is allowed"))),
        false => Err(said(files::refused("the connection", host, port))),
    })?;
    steps.take("connect", |left| {
        let mut why = "it has no address".to_string();
        for address in addresses {
            match TcpStream::connect_timeout(&address, left.clamp(Duration::from_millis(100), Duration::from_secs(3))) {
                Ok(_) => return Ok(((), format!("{address} answers"))),
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        Err(why)
    })
}

fn said(error: RunError) -> String {
    match error.hint {
        Some(hint) => format!("{}; {hint}", error.message),
        None => error.message,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(steps: &[Step]) -> Vec<(&'static str, bool)> {
        steps.iter().map(|step| (step.name, step.ok)).collect()
    }

    #[test]
    fn a_registry_is_asked_with_its_credentials() {
        let wait = Duration::from_secs(5);
        let mine = Egress { loopback: true, ..Egress::default() };
        // Base64 of u:right.
        let registry = test_support::registry::SchemaRegistry::start_closed("Basic dTpyaWdodA==");
        registry.put("one", r#"{"type":"record","name":"R","fields":[]}"#);
        let asked = |info: &str| {
            let options =
                [("avro-confluent.url", registry.url()), ("avro-confluent.basic-auth.user-info", info.into())];
            let options = options.map(|(name, value)| (name.to_string(), value)).into();
            connect("schema_registry", &options, &mine, wait).pop().unwrap()
        };
        let (good, bad) = (asked("u:right"), asked("u:hunter2"));
        assert!(good.ok && good.name == "authenticate and list subjects" && good.detail == "1 subjects", "{good:?}");
        assert!(
            !bad.ok && bad.detail.contains("refused our credentials") && !bad.detail.contains("hunter2"),
            "{bad:?}"
        );
        let none = asked("hunter2");
        assert!(!none.ok && none.detail.contains("user:password"), "{none:?}");
        registry.fail_with([503; 4]);
        let failing = asked("u:right");
        assert!(!failing.ok && failing.detail.contains("503"), "{failing:?}");
    }

    #[test]
    fn the_first_step_that_fails_is_the_last() {
        let wait = Duration::from_secs(3);
        let mine = Egress { loopback: true, ..Egress::default() };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = |port: u16| BTreeMap::from([("s3.endpoint".to_string(), format!("http://127.0.0.1:{port}"))]);
        let open = url(listener.local_addr().unwrap().port());
        let all = [("options", true), ("resolve", true), ("egress", true), ("connect", true)];
        assert_eq!(shown(&connect("s3", &open, &mine, wait)), all);
        let refused = connect("s3", &open, &Egress::default(), wait);
        assert_eq!(shown(&refused)[2..], [("egress", false)]);
        assert_eq!(refused[1].detail, "127.0.0.1 is known");
        drop(listener);
        assert_eq!(shown(&connect("s3", &open, &mine, wait))[3..], [("connect", false)]);
        assert_eq!(shown(&connect("s3", &BTreeMap::new(), &mine, wait)), [("options", false)]);
        let broker = BTreeMap::from([("properties.bootstrap.servers".to_string(), "127.0.0.1:1".to_string())]);
        let steps = connect("kafka", &broker, &mine, wait);
        assert_eq!(shown(&steps)[1..], [("resolve", true), ("egress", true), ("connect", false)], "{steps:?}");
        assert_eq!(shown(&connect("ftp", &BTreeMap::new(), &mine, wait)), [("options", false)]);
    }
}
