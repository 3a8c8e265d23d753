//! `highwater keys`: over REST, or on the store itself: the first key of a server that is reachable from elsewhere must be there before it.

use std::path::PathBuf;

use api::{ApiKey, CreateKey, CreatedKey, IdKind};
use chrono::{DateTime, Utc};

use super::arguments::{Form, KeysArguments, KeysVerb, SureArguments};
use super::failure::{Done, Failure};
use super::listing::{Listing, Record, Row, json, left, maybe_time, print_record, show_record, time};
use super::{connect, done, sure};
use crate::Exit;
use crate::output::say;

const NAME_CHARS_MAX: usize = 128;

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
            Place::Store(store) => {
                // What a server requires by its document; here is none.
                if !(1..=NAME_CHARS_MAX).contains(&key.name.chars().count()) {
                    return Err(Failure::Wrong(format!("the name of a key has 1 to {NAME_CHARS_MAX} characters")));
                }
                let (secret, hash) = server::new_key();
                let stored = metadata::ApiKey {
                    key_id: uuid::Uuid::now_v7(),
                    name: key.name,
                    role: client::name(&key.role),
                    hash,
                    created_at: now(),
                    expires_at: key.expires_at,
                    revoked_at: None,
                };
                let object = IdKind::Key.text(stored.key_id);
                let detail = serde_json::json!({"name": stored.name, "role": stored.role});
                store.create_key(&stored, &change("key.create", object, detail)).await.map_err(refused)?;
                Ok(CreatedKey { key: shown(&stored, key.role), secret })
            }
        }
    }

    async fn list(&self) -> Result<Vec<ApiKey>, Failure> {
        match self {
            Place::Server(client) => Ok(client.keys().await?),
            Place::Store(store) => {
                let keys = store.keys().await.map_err(refused)?;
                keys.iter().map(|key| Ok(shown(key, role(&key.role)?))).collect()
            }
        }
    }

    async fn revoke(&self, key: &str) -> Result<ApiKey, Failure> {
        match self {
            Place::Server(client) => Ok(client.revoke_key(key).await?),
            Place::Store(store) => {
                let id = IdKind::Key.parse(key);
                let id = id.ok_or_else(|| Failure::Wrong(format!("{key:?} is not the id of a key: key_...")))?;
                let change = change("key.revoke", key.to_string(), serde_json::json!({}));
                let revoked = store.revoke_key(id, now(), &change).await.map_err(refused)?;
                Ok(shown(&revoked, role(&revoked.role)?))
            }
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

/// As the server writes it; the principal says that nobody was asked.
fn change(action: &str, object: String, detail: serde_json::Value) -> metadata::Change {
    metadata::Change {
        at: now(),
        principal: "local".into(),
        request_id: uuid::Uuid::now_v7().simple().to_string(),
        action: action.to_string(),
        object,
        detail,
        idempotency: None,
    }
}

/// To the microsecond, as stores keep times.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).expect("now lies within the calendar")
}

fn role(name: &str) -> Result<api::Role, Failure> {
    serde_json::from_value(name.into()).map_err(|_| Failure::Wrong(format!("a key has the unknown role {name:?}")))
}

fn shown(key: &metadata::ApiKey, role: api::Role) -> ApiKey {
    ApiKey {
        id: IdKind::Key.text(key.key_id),
        name: key.name.clone(),
        role,
        created_at: key.created_at,
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
    }
}
