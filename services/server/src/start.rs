//! From a configuration to a server that answers, and to its end.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use chrono::Utc;
use control::inspect::in_object_store;
use metadata::postgres::PostgresStore;
use metadata::sqlite::SqliteStore;
use metadata::{MetadataError, MetadataStore};
use state::Files;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::{App, Parts, Settled};
use crate::http::{body, layers, listen};
use crate::problem::ApiError;
use crate::{Config, attempts, auth, rest};

/// How long requests that are being answered may take when the server ends.
const GRACE: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_secs(3);
const FORGET: Duration = Duration::from_secs(600);
/// Between two looks for runs that nobody follows.
const TAKE_UP: Duration = Duration::from_secs(5);
/// Processes that check tables and connections at once.
const CHECKS_MAX: usize = 8;
/// Savepoints that are written or read at once; each may need memory for a table of an operator.
const COPIES_MAX: usize = 2;
/// Operations and stored answers are kept this long.
const KEPT_DAYS: i64 = 7;

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot use the data directory {path}: {cause}")]
    Data { path: PathBuf, cause: std::io::Error },
    #[error(
        "another server uses the data directory {path}: stop that one first, or give this one a directory of its own"
    )]
    InUse { path: PathBuf },
    #[error("cannot keep checkpoints in {place}: {why}")]
    Storage { place: String, why: String },
    #[error("cannot use the key file {path}: {cause}")]
    Key { path: PathBuf, cause: std::io::Error },
    #[error("cannot listen on {address}: {cause}")]
    Listen { address: SocketAddr, cause: std::io::Error },
    #[error(
        "{address} can be reached from elsewhere, and there is no API key: make one with `highwater keys create NAME --role admin --data DIR`, or listen on 127.0.0.1"
    )]
    Open { address: SocketAddr },
    #[error("cannot use {path} for tables or savepoints: {cause}")]
    Root { path: PathBuf, cause: std::io::Error },
    #[error("{0}")]
    Store(#[from] MetadataError),
    #[error("cannot find this program: {0}")]
    Program(std::io::Error),
    #[error("another server has taken over the metadata store: {0}")]
    TakenOver(MetadataError),
}

/// The store that a configuration names.
pub async fn open_store(config: &Config) -> Result<Arc<dyn MetadataStore>, StartError> {
    Ok(match &config.database {
        Some(url) => Arc::new(PostgresStore::connect(url).await?),
        None => Arc::new(SqliteStore::open(&config.data.join("metadata.sqlite")).await?),
    })
}

/// The place of checkpoints, which is tried out if it is an object store: one that cannot keep them must not be found out by a crash.
async fn open_storage(config: &Config) -> Result<Arc<dyn Files>, StartError> {
    let place = config.place();
    let wrong = |why: String| StartError::Storage { place: place.clone(), why };
    let files = state::objects::open(&place, &config.storage_options()).map_err(wrong)?;
    if in_object_store(&place) {
        let name = format!("probes/{}", uuid::Uuid::new_v4().simple());
        state::objects::probe(&*files, &name)
            .await
            .map_err(|error| StartError::Storage { place, why: error.to_string() })?;
    }
    Ok(files)
}

/// The places of object stores among the roots, which are left with directories.
fn take_places(config: &mut Config) -> Result<Vec<String>, StartError> {
    let (places, directories) = std::mem::take(&mut config.allow_roots)
        .into_iter()
        .partition::<Vec<PathBuf>, _>(|root| root.to_str().is_some_and(in_object_store));
    config.allow_roots = directories;
    let options = config.storage_options();
    let place = |path: PathBuf| {
        let place = path.display().to_string();
        match state::objects::open(&place, &options) {
            Ok(_) => Ok(place),
            Err(why) => Err(StartError::Root { path, cause: std::io::Error::other(why) }),
        }
    };
    places.into_iter().map(place).collect()
}

/// Serves until `stop` becomes true. `ready` is called once, with the address, when requests are answered.
pub async fn serve(
    mut config: Config,
    stop: watch::Receiver<bool>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), StartError> {
    let data = |cause| StartError::Data { path: config.data.clone(), cause };
    std::fs::create_dir_all(&config.data).map_err(data)?;
    config.data = config.data.canonicalize().map_err(data)?;
    let allowed_places = take_places(&mut config)?;
    for root in &mut config.allow_roots {
        *root = root.canonicalize().map_err(|cause| StartError::Root { path: root.clone(), cause })?;
    }
    // A directory that is named from here is found by processes that run elsewhere.
    if let Some(storage) = config.storage.as_mut().filter(|storage| !storage.contains("://")) {
        let path = PathBuf::from(&*storage);
        let whole = std::path::absolute(&path).map_err(|cause| StartError::Data { path, cause })?;
        *storage = whole.display().to_string();
    }
    let checkpoints = open_storage(&config).await?;
    let identity = Identity::take(&config.data)?;
    let key_path = config.data.join("sealing.key");
    let sealing =
        crate::sealing::Sealing::open(&key_path).map_err(|cause| StartError::Key { path: key_path, cause })?;
    let store = open_store(&config).await?;
    let loopback = config.listen.ip().is_loopback();
    let valid = |key: &metadata::ApiKey| key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > Utc::now());
    if !loopback && !store.keys().await?.iter().any(valid) {
        return Err(StartError::Open { address: config.listen });
    }
    let listener =
        TcpListener::bind(config.listen).await.map_err(|cause| StartError::Listen { address: config.listen, cause })?;
    let address = listener.local_addr().map_err(|cause| StartError::Listen { address: config.listen, cause })?;
    let program = std::env::current_exe().map_err(StartError::Program)?;
    // The last thing that can be refused: what does not start does not keep others from leading.
    let term = store.lead(&identity.holder).await?;
    let app = App::new(Parts {
        store,
        term,
        sealing,
        keys: auth::Keys::default(),
        rates: crate::rates::Rates::new(config.requests_per_second.get()),
        attempts: attempts::Attempts::default(),
        savepoints: attempts::savepoints::Savepoints::default(),
        metrics: crate::metrics::ServerMetrics::default(),
        checkpoints,
        in_flight: Default::default(),
        view_files: Default::default(),
        queries: Arc::new(Semaphore::new(config.max_active_queries.min(Semaphore::MAX_PERMITS))),
        checks: Semaphore::new(CHECKS_MAX),
        copies: Semaphore::new(COPIES_MAX),
        stopping: watch::Sender::new(false),
        config: Settled { allowed_places, loopback, program, config },
    });
    attempts::take_up(&app).await?;
    tokio::task::spawn_blocking(body::prepare);
    tokio::task::spawn_blocking({
        let app = app.clone();
        move || rest::remove_left_queries(&app)
    });
    let lost = keep_leading(app.clone(), term);
    let forgetting = tokio::spawn(forget(app.clone()));
    let taking_up = tokio::spawn(take_up(app.clone()));
    tracing::info!(%address, "the server is ready");
    ready(address);
    let serving = listen::serve(listener, router(app.clone()), app.stopping.subscribe(), GRACE);
    let mut stop = stop;
    let stopping = async {
        let cause = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => None,
            lost = lost => Some(lost),
        };
        app.stopping.send_replace(true);
        cause
    };
    let ((), cause) = tokio::join!(serving, stopping);
    forgetting.abort();
    taking_up.abort();
    if let Err(error) = app.store.release(term).await {
        tracing::warn!(%error, "the lease of the metadata store was not given back: another data directory waits until it ends");
    }
    tracing::info!("the server has ended; active runs go on");
    match cause {
        Some(error) => Err(StartError::TakenOver(error)),
        None => Ok(()),
    }
}

fn router(app: App) -> Router {
    let (open, _) = rest::open_routes().split_for_parts();
    let (guarded, _) = rest::guarded_routes().split_for_parts();
    let guarded = guarded.fallback(nothing_here).layer(from_fn_with_state(app.clone(), auth::identify));
    open.merge(guarded)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn(time_limit))
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(from_fn_with_state(app.clone(), layers::answer))
        .with_state(app)
}

async fn nothing_here() -> ApiError {
    ApiError::new("not_found", "there is nothing at this path").hint("the paths are listed at /docs")
}

async fn not_allowed() -> ApiError {
    ApiError::new("method_not_allowed", "the path does not take this method")
}

/// No request takes for ever; a stream that has begun may, and queries have limits of their own.
async fn time_limit(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
    use axum::response::IntoResponse;
    if request.uri().path() == rest::QUERY_PATH {
        return next.run(request).await;
    }
    match tokio::time::timeout(layers::ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new("not_ready", "the server could not answer in its time").into_response(),
    }
}

/// Renews the lease; returns when another has it. A store that is away is no reason to end.
async fn keep_leading(app: App, term: i64) -> MetadataError {
    loop {
        tokio::time::sleep(RENEW).await;
        match app.store.renew(term).await {
            Err(error @ MetadataError::Owned(_)) => return error,
            Err(error) => tracing::warn!(%error, "the lease of the metadata store was not renewed"),
            Ok(()) => {}
        }
    }
}

/// A start or a stop may be stored although the store could not say so.
async fn take_up(app: App) {
    loop {
        tokio::time::sleep(TAKE_UP).await;
        if let Err(error) = attempts::take_up(&app).await {
            tracing::debug!(%error, "active runs were not looked through");
        }
    }
}

async fn forget(app: App) {
    loop {
        if let Err(error) = app.store.forget(Utc::now() - chrono::TimeDelta::days(KEPT_DAYS)).await {
            tracing::debug!(%error, "old operations were not removed");
        }
        tokio::time::sleep(FORGET).await;
    }
}

/// Who this server is to the metadata store. It belongs to the data directory: the next server on the same one takes over at once, whatever
/// became of the one before.
struct Identity {
    /// Of the machine that made it, so that people know where to look, and random.
    holder: String,
    /// Held, not used: two servers with one directory would take the lease from each other. The system drops it with the process.
    _lock: File,
}

impl Identity {
    fn take(data: &Path) -> Result<Identity, StartError> {
        let path = data.join("server.id");
        let failed = |cause| StartError::Data { path: path.clone(), cause };
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(StartError::InUse { path: data.to_path_buf() }),
            Err(std::fs::TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        let mut holder = String::new();
        file.read_to_string(&mut holder).map_err(failed)?;
        // A line that was not written to its end is none.
        if !holder.ends_with('\n') {
            holder = format!("{}/{}\n", hostname(), uuid::Uuid::new_v4());
            file.set_len(0).map_err(failed)?;
            file.rewind().and_then(|()| file.write_all(holder.as_bytes())).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
        Ok(Identity { holder: holder.trim_end().to_string(), _lock: file })
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_data_directory_is_one_server_at_a_time_and_the_same_one_every_time() {
        let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Identity::take(data.path()).unwrap();
        assert!(first.holder.starts_with(&format!("{}/", hostname())));
        assert!(matches!(Identity::take(data.path()), Err(StartError::InUse { path }) if path == data.path()));
        assert_ne!(Identity::take(other.path()).unwrap().holder, first.holder);
        let holder = first.holder.clone();
        drop(first);
        assert_eq!(Identity::take(data.path()).unwrap().holder, holder);
        // One that was killed while it wrote its name never led by it.
        std::fs::write(data.path().join("server.id"), "half").unwrap();
        let again = Identity::take(data.path()).unwrap().holder;
        assert!(again != "half" && again != holder, "{again}");
    }
}
