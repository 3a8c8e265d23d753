//! `highwater serve`: the server from its configuration to its exit code.

use metadata::MetadataError;
use server::{Config, StartError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::Exit;
use crate::arguments::ServeArguments;
use crate::output::{self, say};

/// Threads that may block: reads of files, and databases.
const BLOCKING_THREADS_MAX: usize = 64;

pub fn serve(arguments: &ServeArguments) -> Exit {
    // A server is small, and stays so.
    worker::no_huge_pages_yet();
    let config = match config(arguments) {
        Ok(config) => config,
        Err(message) => {
            say(&format!("error: {message}\n"));
            return Exit::Invalid;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("error: cannot start threads: {error}\n"));
            return Exit::Failed;
        }
    };
    let exit = runtime.block_on(to_its_end(config));
    runtime.shutdown_background();
    exit
}

async fn to_its_end(config: Config) -> Exit {
    let (stop, stopped) = watch::channel(false);
    let signals =
        signal(SignalKind::interrupt()).and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
    let (mut interrupt, mut terminate) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            say(&format!("error: cannot listen for signals: {error}\n"));
            return Exit::Failed;
        }
    };
    tokio::spawn(async move {
        let mut asked = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            asked += 1;
            stop.send_replace(true);
            // Runs lose nothing by it: their processes go on.
            if asked > 1 {
                std::process::exit(Exit::Interrupted as i32);
            }
        }
    });
    let ready = |address| drop(output::write(format!("listening on http://{address}\n").as_bytes()));
    let place = match &config.database {
        Some(_) => "--database".to_string(),
        None => format!("--data {}", config.data.display()),
    };
    match server::serve(config, stopped, ready).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            say(&format!("error: {error}\n"));
            if matches!(error, StartError::Open { .. }) {
                say(&format!(
                    "  = help: without a server a key is made by: highwater keys create NAME --role admin {place}\n"
                ));
            }
            exit(&error)
        }
    }
}

/// What it means that a server did not start, or had to end.
fn exit(error: &StartError) -> Exit {
    match error {
        StartError::Open { .. } | StartError::Root { .. } => Exit::Invalid,
        StartError::Store(MetadataError::Unavailable { .. }) => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

fn config(arguments: &ServeArguments) -> Result<Config, String> {
    let mut config = match &arguments.config {
        None => Config::default(),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            Config::from_json(&text).map_err(|error| format!("{}: {error}", path.display()))?
        }
    };
    if let Some(listen) = arguments.listen {
        config.listen = listen;
    }
    if let Some(data) = &arguments.data {
        config.data = data.clone();
    }
    if let Some(database) = &arguments.database {
        config.database = Some(database.clone());
    }
    if let Some(storage) = &arguments.storage {
        config.storage = Some(storage.clone());
    }
    for (name, value) in &arguments.storage_options {
        if graph::connector::is_secret_option(name) {
            return Err(format!(
                "{name} is a secret, and arguments can be read by others: write it into the configuration file, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ));
        }
        config.storage_options.insert(name.clone(), graph::Secret(value.clone()));
    }
    if !arguments.allow_root.is_empty() {
        config.allow_roots = arguments.allow_root.clone();
    }
    if !arguments.allow_endpoint.is_empty() {
        config.allow_endpoints = Some(arguments.allow_endpoint.clone());
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn why_a_server_does_not_start_has_its_exit_code() {
        let address = "0.0.0.0:80".parse().expect("an address");
        let cause = || std::io::Error::other("x");
        let away = MetadataError::Unavailable { cause: "x".into(), ambiguous: false };
        for (error, expected) in [
            (StartError::Open { address }, Exit::Invalid),
            (StartError::Root { path: "/x".into(), cause: cause() }, Exit::Invalid),
            (StartError::Store(away), Exit::Unreachable),
            (StartError::Store(MetadataError::Unusable("x".into())), Exit::Failed),
            (StartError::Data { path: "/x".into(), cause: cause() }, Exit::Failed),
            (StartError::Listen { address, cause: cause() }, Exit::Failed),
        ] {
            assert_eq!(exit(&error), expected, "{error}");
        }
    }

    /// What stands in `docs/service.md` is what stands in the server's configuration.
    #[test]
    fn the_configuration_is_documented_with_its_defaults() {
        let read = |path: &str| std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR")));
        let page = read("docs/service.md").expect("a page");
        let list = page.split("\n## Configuration\n").nth(1).and_then(|rest| rest.split("\n## ").next());
        let list = list.expect("a chapter");
        let code = read("services/server/src/config.rs").expect("the code");
        let fields = code.split("pub struct Config {").nth(1).and_then(|rest| rest.split("\n}").next());
        let (mut comment, mut rows) = (Vec::new(), 0);
        for line in fields.expect("a structure").lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("///") {
                comment.push(text.trim());
            } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) {
                let (name, text) = (name.replace('_', "-"), std::mem::take(&mut comment).join(" "));
                let (meaning, default) = text.rsplit_once(" Default: ").expect("a default");
                let default = default.trim_end_matches('.');
                let row = format!("| `{name}` | {meaning} | {default} |");
                assert!(list.contains(&row), "docs/service.md lacks\n{row}");
                rows += 1;
                // A default that is a value is the one that is taken.
                let value = match default {
                    "1 GiB" => json!(1 << 30),
                    "none" | "no limit" => continue,
                    text if text.contains(' ') => continue,
                    text => {
                        text.parse::<u64>().map_or_else(|_| Value::from(text.trim_start_matches("./")), Value::from)
                    }
                };
                let given = Config::from_json(&json!({name.as_str(): value}).to_string());
                assert_eq!(given, Ok(Config::default()), "{name} is not {default} by default");
            }
        }
        assert_eq!(list.lines().filter(|line| line.starts_with("| `")).count(), rows, "a row is of no setting");
    }
}
