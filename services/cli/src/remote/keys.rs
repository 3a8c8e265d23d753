//! `highwater keys`: over REST, or on the store itself: the first key of a server that is reachable from elsewhere must be there before it.

use std::path::PathBuf;

use api::{ApiKey, CreateKey, CreatedKey};
use chrono::Utc;
use server::Caller;

use super::arguments::{Form, KeysArguments, KeysVerb, SureArguments};
use super::failure::{Done, Failure};
use super::listing::{Listing, Record, Row, json, left, maybe_time, print_record, show_record, time};
use super::{connect, done, sure};
use crate::Exit;
use crate::output::say;

pub async fn keys(arguments: &KeysArguments) -> Done {
    let form = arguments.form.form;
    let store = Place::of(arguments).await?;
    match &arguments.verb {
        KeysVerb::Create { name, role, expires_in } => {
            let expires_at = match expires_in {
                None => None,
                Some(after) => Some(
                    chrono::TimeDelta::from_std(*after).ok().and_then(|after| Utc::now().checked_add_signed(after)),
                )
                .map(|at| at.ok_or_else(|| Failure::Wrong("the key would expire beyond the calendar".into())))
                .transpose()?,
            };
            let created = store.create(CreateKey { name: name.clone(), role: *role, expires_at }).await?;
            print_created(&created, form)
        }
        KeysVerb::List => {
            let columns = [left("id"), left("name"), left("role"), left("created"), left("expires"), left("revoked")];
            Listing::new(columns, store.list().await?.iter().map(row)).print(form)
        }
        KeysVerb::Revoke { id: key, sure: SureArguments { yes } } => {
            sure(*yes, &format!("revoking key {key}"))?;
            let revoked = store.revoke(key).await?;
            let fields = vec![
                (left("id"), revoked.id.clone()),
                (left("name"), revoked.name.clone()),
                (left("revoked"), maybe_time(revoked.revoked_at)),
            ];
            print_record(fields, &revoked, &revoked.id, form)
        }
    }
}

fn row(key: &ApiKey) -> Row {
    let cells = vec![
        key.id.clone(),
        key.name.clone(),
        client::name(&key.role),
        time(key.created_at),
        maybe_time(key.expires_at),
        maybe_time(key.revoked_at),
    ];
    Row::new(cells, key, &key.id)
}

/// The key alone on stdout, so that `KEY=$(highwater keys create ...)` gets it.
fn print_created(created: &CreatedKey, form: Form) -> Done {
    if form != Form::Table {
        let fields = vec![
            (left("id"), created.key.id.clone()),
            (left("name"), created.key.name.clone()),
            (left("role"), client::name(&created.key.role)),
            (left("secret"), created.secret.clone()),
        ];
        let record = Record { fields, item: json(created), name: created.secret.clone() };
        show_record(&record, form)?;
        return done();
    }
    say(&format!(
        "created {} key '{}' ({}); it is shown this once. Keep it, and set HIGHWATER_KEY to it:\n",
        client::name(&created.key.role),
        created.key.name,
        created.key.id
    ));
    match crate::output::answer(format!("{}\n", created.secret).as_bytes()) {
        Exit::Done => done(),
        exit => Ok(exit),
    }
}

/// Where keys are kept.
enum Place {
    Server(client::Client),
    Store(std::sync::Arc<dyn metadata::MetadataStore>),
}

impl Place {
    async fn of(arguments: &KeysArguments) -> Result<Place, Failure> {
        let Some(config) = config(arguments)? else { return Ok(Place::Server(connect(&arguments.server)?)) };
        if config.database.is_none() && matches!(arguments.verb, KeysVerb::Create { .. }) {
            std::fs::create_dir_all(&config.data).map_err(|error| {
                Failure::Wrong(format!("cannot use the data directory {}: {error}", config.data.display()))
            })?;
        }
        let store = server::open_store(&config).await.map_err(|error| match error {
            server::StartError::Store(error) => refused(error),
            other => Failure::Wrong(other.to_string()),
        })?;
        Ok(Place::Store(store))
    }

    async fn create(&self, key: CreateKey) -> Result<CreatedKey, Failure> {
        match self {
            Place::Server(client) => Ok(client.create_key(&key).await?),
            Place::Store(store) => server::keys::create(&**store, &Caller::local(), key).await.map_err(answered),
        }
    }

    async fn list(&self) -> Result<Vec<ApiKey>, Failure> {
        match self {
            Place::Server(client) => Ok(client.keys().await?),
            Place::Store(store) => server::keys::list(&**store).await.map_err(answered),
        }
    }

    async fn revoke(&self, key: &str) -> Result<ApiKey, Failure> {
        match self {
            Place::Server(client) => Ok(client.revoke_key(key).await?),
            Place::Store(store) => server::keys::revoke(&**store, &Caller::local(), key).await.map_err(answered),
        }
    }
}

/// The store that the arguments name; none means the server.
fn config(arguments: &KeysArguments) -> Result<Option<server::Config>, Failure> {
    let database = match arguments.database {
        false => None,
        true => {
            let url = std::env::var("HIGHWATER_DATABASE").ok().filter(|url| !url.is_empty());
            Some(url.ok_or_else(|| {
                Failure::Wrong("--database takes its URL from HIGHWATER_DATABASE, which is empty".into())
            })?)
        }
    };
    if let (Some(data), false) = (&arguments.data, matches!(arguments.verb, KeysVerb::Create { .. }))
        && !data.join("metadata.sqlite").exists()
    {
        return Err(Failure::NotThere(format!("there is no metadata.sqlite in {}", data.display())));
    }
    Ok(match (&arguments.data, database) {
        (None, None) => None,
        (data, database) => Some(server::Config {
            data: data.clone().unwrap_or_else(|| PathBuf::from(".")),
            database,
            ..server::Config::default()
        }),
    })
}

/// What the server would answer, said here.
fn answered(error: server::ApiError) -> Failure {
    let problem = error.problem();
    let message = problem.detail.clone();
    match problem.status {
        404 => Failure::NotThere(message),
        409 => Failure::Taken(message),
        503 => Failure::Away(message),
        _ => Failure::Wrong(message),
    }
}

fn refused(error: metadata::MetadataError) -> Failure {
    let message = error.to_string();
    match error {
        metadata::MetadataError::NotFound { .. } => Failure::NotThere(message),
        metadata::MetadataError::Exists { .. } => Failure::Taken(message),
        metadata::MetadataError::Owned(_) => Failure::Taken(format!("{message}; ask that server: leave out --data")),
        metadata::MetadataError::Unavailable { .. } => Failure::Away(message),
        _ => Failure::Wrong(message),
    }
}
