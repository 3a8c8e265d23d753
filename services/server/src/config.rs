//! How the server runs. A file in JSON with these names, or the arguments of `highwater serve`, which come before it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use control::attempt::Egress;
use graph::Secret;
use serde::Deserialize;

/// Everything that can be chosen about a server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one. Another than a loopback address needs an API key. Default: 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Directory of everything that the server keeps: the embedded database, runs, views. Default: ./highwater-data.
    pub data: PathBuf,
    /// `postgres://...`; without it the metadata is in SQLite under `data`. Default: none.
    pub database: Option<String>,
    /// Where checkpoints are kept: a directory, or `s3://bucket/prefix`. Default: checkpoints/ under `data`.
    pub storage: Option<String>,
    /// How `storage` is reached, as tables say it: `s3.endpoint`, `s3.region`, `s3.access-key`, `s3.secret-key`. Default: what the environment says (`AWS_ACCESS_KEY_ID`...).
    pub storage_options: BTreeMap<String, Secret>,
    /// Local directories that tables and savepoints may use, and places `s3://bucket/prefix` for savepoints, reached as `storage` is. Default: none.
    pub allow_roots: Vec<PathBuf>,
    /// Where connectors may connect: `host`, `host:port`, a network as `10.0.0.0/8`, `loopback`, or `anywhere`. Cloud metadata addresses are
    /// refused in any case. Default: loopback where the server listens on a loopback address, else nowhere.
    pub allow_endpoints: Option<Vec<String>>,
    /// Active runs, at most; more are refused. Default: 200.
    pub max_active_runs: usize,
    /// Resident bytes of each process of a run whose job says nothing else. Default: no limit.
    pub run_memory_bytes: Option<u64>,
    /// Percent of processor time of a run whose job says nothing else. Default: no limit.
    pub run_cpu_percent: Option<u32>,
    /// A query may take this long, at most and if it says nothing else. Default: 60s.
    #[serde(with = "text")]
    pub query_timeout: std::time::Duration,
    /// Resident bytes of a query's process, at most and if it says nothing else. Default: 1 GiB.
    pub query_memory_bytes: u64,
    /// Queries that run at once; more are refused. Default: 8.
    pub max_active_queries: usize,
    /// Requests per second and caller; more are refused for a while. Default: 20000.
    pub requests_per_second: NonZeroU32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data: "highwater-data".into(),
            database: None,
            storage: None,
            storage_options: BTreeMap::new(),
            allow_roots: Vec::new(),
            allow_endpoints: None,
            max_active_runs: 200,
            run_memory_bytes: None,
            run_cpu_percent: None,
            query_timeout: std::time::Duration::from_secs(60),
            query_memory_bytes: 1 << 30,
            max_active_queries: 8,
            requests_per_second: NonZeroU32::new(20_000).expect("it is not zero"),
        }
    }
}

impl Config {
    /// Reads the text of a configuration file.
    pub fn from_json(text: &str) -> Result<Config, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Where all checkpoints are, as `state::objects::open` takes it.
    pub fn place(&self) -> String {
        match &self.storage {
            Some(storage) => storage.clone(),
            None => self.data.join("checkpoints").display().to_string(),
        }
    }

    /// How it is reached, secrets included.
    pub fn storage_options(&self) -> BTreeMap<String, String> {
        self.storage_options.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()
    }

    pub fn egress(&self) -> Egress {
        let Some(endpoints) = &self.allow_endpoints else {
            return Egress { loopback: self.listen.ip().is_loopback(), anywhere: false, allowed: Vec::new() };
        };
        let named = |name: &str| endpoints.iter().any(|endpoint| endpoint == name);
        let others = endpoints.iter().filter(|endpoint| !["loopback", "anywhere"].contains(&endpoint.as_str()));
        Egress { loopback: named("loopback"), anywhere: named("anywhere"), allowed: others.cloned().collect() }
    }
}

/// Durations as texts: `90s`, `5m`.
mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_differs_and_nothing_unknown() {
        let config = Config::from_json(r#"{"query-timeout": "5s", "allow-endpoints": ["loopback", "kafka:9092"]}"#);
        let config = config.expect("good");
        assert_eq!(config.query_timeout, std::time::Duration::from_secs(5));
        assert_eq!(config.egress(), Egress { loopback: true, anywhere: false, allowed: vec!["kafka:9092".into()] });
        assert!(Config::default().egress().loopback && !Config::default().egress().anywhere);
        for wrong in [r#"{"query-timeot": "5s"}"#, r#"{"requests-per-second": 0}"#] {
            assert!(Config::from_json(wrong).is_err(), "{wrong}");
        }
    }
}
