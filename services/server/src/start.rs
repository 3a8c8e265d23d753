//! From a configuration to a server that answers, and to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use chrono::Utc;
use metadata::postgres::PostgresStore;
use metadata::sqlite::SqliteStore;
use metadata::{MetadataError, MetadataStore};
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
/// Operations and stored answers are kept this long.
const KEPT_DAYS: i64 = 7;

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot use the data directory {path}: {cause}")]
    Data { path: PathBuf, cause: std::io::Error },
    #[error("cannot use the key file {path}: {cause}")]
    Key { path: PathBuf, cause: std::io::Error },
    #[error("cannot listen on {address}: {cause}")]
    Listen { address: SocketAddr, cause: std::io::Error },
    #[error(
        "{address} can be reached from elsewhere, and there is no API key: make one with `highwater keys create`, or listen on 127.0.0.1"
    )]
    Open { address: SocketAddr },
    #[error("cannot use {path} as a directory for tables: {cause}")]
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

/// Serves until `stop` becomes true. `ready` is called once, with the address, when requests are answered.
pub async fn serve(
    mut config: Config,
    stop: watch::Receiver<bool>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), StartError> {
    let data = |cause| StartError::Data { path: config.data.clone(), cause };
    std::fs::create_dir_all(&config.data).map_err(data)?;
    config.data = config.data.canonicalize().map_err(data)?;
    for root in &mut config.allow_roots {
        *root = root.canonicalize().map_err(|cause| StartError::Root { path: root.clone(), cause })?;
    }
    let key_path = config.data.join("sealing.key");
    let sealing =
        crate::sealing::Sealing::open(&key_path).map_err(|cause| StartError::Key { path: key_path, cause })?;
    let store = open_store(&config).await?;
    let term = store.lead(&format!("{}/{}", hostname(), std::process::id())).await?;
    let loopback = config.listen.ip().is_loopback();
    let valid = |key: &metadata::ApiKey| key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > Utc::now());
    if !loopback && !store.keys().await?.iter().any(valid) {
        return Err(StartError::Open { address: config.listen });
    }
    let listener =
        TcpListener::bind(config.listen).await.map_err(|cause| StartError::Listen { address: config.listen, cause })?;
    let address = listener.local_addr().map_err(|cause| StartError::Listen { address: config.listen, cause })?;
    let program = std::env::current_exe().map_err(StartError::Program)?;
    let app = App::new(Parts {
        store,
        sealing,
        keys: auth::Keys::default(),
        rates: crate::rates::Rates::new(config.requests_per_second.get()),
        attempts: attempts::Attempts::default(),
        metrics: crate::metrics::ServerMetrics::default(),
        in_flight: Default::default(),
        view_files: Default::default(),
        queries: Arc::new(Semaphore::new(config.max_active_queries.min(Semaphore::MAX_PERMITS))),
        checks: Semaphore::new(CHECKS_MAX),
        stopping: watch::Sender::new(false),
        config: Settled { loopback, program, config },
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

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_string()).unwrap_or_default()
}
