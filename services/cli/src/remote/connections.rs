//! `highwater connections`: how to reach other systems. Secrets come from the terminal, stdin or files: arguments can be seen by everyone.

use std::collections::BTreeMap;

use api::{Connection, ConnectionKind, CreateConnection, ReplaceConnection};
use client::Client;

use super::arguments::{ConnectionsArguments, ConnectionsVerb, Form, SureArguments};
use super::failure::{Done, Failure};
use super::listing::{Listing, Row, left, print_record, right, time};
use super::{connect, done, sure, terminal};
use crate::Exit;
use crate::output::say;

/// A longer file is no secret.
const SECRET_BYTES_MAX: u64 = 64 << 10;

pub async fn connections(arguments: &ConnectionsArguments) -> Done {
    let client = connect(&arguments.server)?;
    let form = arguments.form.form;
    match &arguments.verb {
        None | Some(ConnectionsVerb::List) => list(&client).await?.print(form),
        Some(ConnectionsVerb::Get { name }) => print(&client.connection(name).await?, form),
        Some(ConnectionsVerb::Create { name, kind, options, secrets, secret_files, replace }) => {
            let options: BTreeMap<_, _> = options.iter().cloned().collect();
            let secrets = read(name, secrets, secret_files)?;
            print(&create(&client, name, *kind, options, secrets, *replace).await?, form)
        }
        Some(ConnectionsVerb::Test { name }) => test(&client, name, form).await,
        Some(ConnectionsVerb::Delete { name, sure: SureArguments { yes } }) => {
            sure(*yes, &format!("deleting connection '{name}'"))?;
            client.delete_connection(name).await?;
            say(&format!("deleted connection '{name}'\n"));
            done()
        }
    }
}

async fn create(
    client: &Client,
    name: &str,
    kind: ConnectionKind,
    options: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    replace: bool,
) -> Result<Connection, Failure> {
    if replace {
        return Ok(client.replace_connection(name, &ReplaceConnection { kind, options, secrets }).await?);
    }
    Ok(client.create_connection(&CreateConnection { name: name.to_string(), kind, options, secrets }).await?)
}

fn read(connection: &str, asked: &[String], files: &[(String, String)]) -> Result<BTreeMap<String, String>, Failure> {
    let mut secrets = BTreeMap::new();
    for option in asked {
        let secret = terminal::secret(&format!("{option} of {connection}: "))?;
        let secret = secret.ok_or_else(|| Failure::Wrong(format!("stdin has no line for {option}")))?;
        secrets.insert(option.clone(), secret);
    }
    for (option, path) in files {
        let unreadable = |reason: String| Failure::Wrong(format!("cannot read {option} from {path}: {reason}"));
        let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if length > SECRET_BYTES_MAX {
            return Err(unreadable(format!("it has more than {} KiB", SECRET_BYTES_MAX >> 10)));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        // A certificate keeps its lines; what an editor adds at the end is no part of a password.
        secrets.insert(option.clone(), text.trim_end_matches(['\r', '\n']).to_string());
    }
    Ok(secrets)
}

fn print(connection: &Connection, form: Form) -> Done {
    let fields = vec![
        (left("name"), connection.name.clone()),
        (left("kind"), client::name(&connection.kind)),
        (left("options"), options(connection, "\n")),
        (left("secrets"), connection.secrets.join(", ")),
        (left("created"), time(connection.created_at)),
        (left("updated"), time(connection.updated_at)),
    ];
    print_record(fields, connection, &connection.name, form)
}

fn options(connection: &Connection, between: &str) -> String {
    connection.options.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(between)
}

async fn list(client: &Client) -> Result<Listing, Failure> {
    let connections = client.connections().await?;
    let row = |connection: &Connection| {
        let cells = vec![
            connection.name.clone(),
            client::name(&connection.kind),
            options(connection, ", "),
            connection.secrets.join(", "),
            time(connection.updated_at),
        ];
        Row::new(cells, connection, &connection.name)
    };
    let columns = [left("name"), left("kind"), left("options"), left("secrets"), left("updated")];
    Ok(Listing::new(columns, connections.iter().map(row)))
}

async fn test(client: &Client, name: &str, form: Form) -> Done {
    let test = client.test_connection(name).await?;
    let row = |step: &api::ConnectionTestStep| {
        let cells = vec![
            step.step.clone(),
            if step.ok { "ok" } else { "failed" }.into(),
            step.elapsed_ms.to_string(),
            step.detail.clone(),
        ];
        Row::new(cells, step, &step.step)
    };
    let columns = [left("step"), left("result"), right("ms"), left("detail")];
    Listing::new(columns, test.steps.iter().map(row)).print(form)?;
    Ok(if test.ok { Exit::Done } else { Exit::Failed })
}
