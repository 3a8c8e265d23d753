//! Who asks, and what they may.
//!
//! A key is `hw_` and 256 random bits; the store has its sha256 only. While there is no key, a server on a loopback address takes every
//! request as `local`, an admin, if it names a loopback host and comes from no page of another: a browser on the same machine is no way in.
//! The pages about the API hold nothing of what is stored, and are shown to everyone.

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::{IdKind, Role};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use metadata::{ApiKey, Change, MetadataStore};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::http::layers::RequestId;
use crate::problem::{ApiError, ApiResult};

/// Keys that another process has made or revoked are seen after this long.
const KEYS_FRESH: Duration = Duration::from_secs(2);

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    pub principal: String,
    pub role: Role,
    pub request_id: String,
}

impl Caller {
    /// Who may use the store itself, and asks nobody.
    pub fn local() -> Caller {
        Caller { principal: "local".into(), role: Role::Admin, request_id: uuid::Uuid::now_v7().simple().to_string() }
    }

    /// A change that this caller makes.
    pub fn change(&self, action: &str, object: &str, detail: Value) -> Change {
        Change {
            at: crate::time::now(),
            principal: self.principal.clone(),
            request_id: self.request_id.clone(),
            action: action.to_string(),
            object: object.to_string(),
            detail,
            idempotency: None,
        }
    }
}

/// A new key: what its owner gets, and what is stored.
pub fn new_key() -> (String, Vec<u8>) {
    let mut random = [0; 32];
    getrandom::fill(&mut random).expect("the system has random numbers");
    let key = format!("hw_{}", URL_SAFE_NO_PAD.encode(random));
    let hash = Sha256::digest(key.as_bytes()).to_vec();
    (key, hash)
}

pub fn role(name: &str) -> Option<Role> {
    match name {
        "viewer" => Some(Role::Viewer),
        "operator" => Some(Role::Operator),
        "admin" => Some(Role::Admin),
        _ => None,
    }
}

pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

type ByHash = HashMap<Vec<u8>, ApiKey>;

/// The keys, by hash, as the store had them a moment ago.
#[derive(Default)]
pub struct Keys {
    known: RwLock<Option<(Instant, ByHash)>>,
    /// Counts changes: what was read before the last one is not kept.
    changes: AtomicU64,
}

impl Keys {
    /// Forgets what is known; the next request reads the store.
    pub fn changed(&self) {
        let mut known = self.known.write().expect("nothing panics while it holds the keys");
        self.changes.fetch_add(1, Ordering::SeqCst);
        *known = None;
    }

    /// Looks at the keys that are not revoked. When the store cannot be reached, the last ones known count.
    async fn with<T: Send>(
        &self,
        store: &dyn MetadataStore,
        look: impl Fn(&ByHash) -> T + Send + Sync,
    ) -> ApiResult<T> {
        if let Some((at, keys)) = &*self.known.read().expect("nothing panics while it holds the keys")
            && at.elapsed() < KEYS_FRESH
        {
            return Ok(look(keys));
        }
        let changes = self.changes.load(Ordering::SeqCst);
        match store.keys().await {
            Ok(keys) => {
                let valid = keys.into_iter().filter(|key| key.revoked_at.is_none());
                let map: ByHash = valid.map(|key| (key.hash.clone(), key)).collect();
                let seen = look(&map);
                let mut known = self.known.write().expect("nothing panics while it holds the keys");
                if self.changes.load(Ordering::SeqCst) == changes {
                    *known = Some((Instant::now(), map));
                }
                Ok(seen)
            }
            Err(error) => {
                let mut known = self.known.write().expect("nothing panics while it holds the keys");
                let Some((at, keys)) = known.as_mut() else { return Err(error.into()) };
                *at = Instant::now();
                Ok(look(keys))
            }
        }
    }

    pub async fn any(&self, store: &dyn MetadataStore) -> ApiResult<bool> {
        self.with(store, |keys| !keys.is_empty()).await
    }
}

/// Finds out who asks; every request behind this layer has a [`Caller`].
pub async fn identify(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let asked = Asked {
        request_id: request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
        key: bearer(request.headers()).map(str::to_string),
        host: host(&request),
        page: is_open_page(request.uri().path()),
        origin: request.headers().get(header::ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()).into()),
    };
    let guesses = asked.key.is_some();
    match caller(&app, asked).await {
        Ok(caller) => match app.rates.take(&caller.principal) {
            Ok(()) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(wait) => too_many(wait),
        },
        // Guessing is slow, whoever does it; keys that are right are not held up by it.
        Err(error) if guesses => match app.rates.take_failure() {
            Ok(()) => error.into_response(),
            Err(wait) => too_many(wait),
        },
        Err(error) => error.into_response(),
    }
}

fn too_many(wait: Duration) -> Response {
    let seconds = wait.as_secs_f64().ceil().max(1.0);
    let error = ApiError::new("too_many_requests", "more requests than the server allows were sent");
    error.header(header::RETRY_AFTER, &format!("{seconds}")).into_response()
}

/// What of a request says who asks.
struct Asked {
    request_id: String,
    key: Option<String>,
    host: String,
    /// It is for a page that everyone may see.
    page: bool,
    /// Of the page that asks, if a browser does.
    origin: Option<String>,
}

async fn caller(app: &App, asked: Asked) -> ApiResult<Caller> {
    let request_id = asked.request_id;
    if asked.page {
        return Ok(Caller { principal: "anyone".into(), role: Role::Viewer, request_id });
    }
    match asked.key {
        Some(key) => {
            let hash = Sha256::digest(key.as_bytes()).to_vec();
            let found = app.keys.with(&*app.store, |keys| keys.get(&hash).cloned()).await?;
            let valid = found.filter(|key| key.expires_at.is_none_or(|at| at > Utc::now()));
            let Some(key) = valid else {
                return Err(unauthenticated("the API key is unknown, expired or revoked"));
            };
            let role =
                role(&key.role).ok_or_else(|| ApiError::internal(format!("a key with the role {}", key.role)))?;
            Ok(Caller { principal: IdKind::Key.text(key.key_id), role, request_id })
        }
        None if app.keys.any(&*app.store).await? || !app.config.loopback => {
            Err(unauthenticated("the request has no API key"))
        }
        None => {
            loopback_host(&asked.host)?;
            if let Some(origin) = &asked.origin {
                loopback_host(origin.split_once("://").map_or("", |(_, host)| host))?;
            }
            Ok(Caller { principal: "local".into(), role: Role::Admin, request_id })
        }
    }
}

fn unauthenticated(detail: &str) -> ApiError {
    ApiError::new("unauthenticated", detail).hint(KEY_HINT).header(header::WWW_AUTHENTICATE, "Bearer")
}

const KEY_HINT: &str = "send the header `Authorization: Bearer KEY`; an admin makes keys with `highwater keys create NAME --role ROLE`, and \
                        whoever has none makes one on the machine of the server, while it is stopped: \
                        `highwater keys create NAME --role admin --data DIR`";

/// The document of the API, and the pages about it and its errors.
fn is_open_page(path: &str) -> bool {
    matches!(path, "/docs" | "/openapi.json") || path.starts_with("/docs/problems/")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn host(request: &Request) -> String {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    host.or_else(|| request.uri().host()).unwrap_or("").to_string()
}

fn loopback_host(host: &str) -> ApiResult<()> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = name.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if loopback {
        return Ok(());
    }
    let shown: String = host.chars().take(100).collect();
    Err(ApiError::new("host_not_allowed", format!("the request is for the host {shown:?}")))
}

/// Callers with at least a role; a handler names what it needs by its argument.
pub struct Viewer(pub Caller);
pub struct Operator(pub Caller);
pub struct Admin(pub Caller);

macro_rules! at_least {
    ($extractor:ident, $role:expr) => {
        impl FromRequestParts<App> for $extractor {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<$extractor> {
                allowed(parts, app, $role).await.map($extractor)
            }
        }
    };
}

at_least!(Viewer, Role::Viewer);
at_least!(Operator, Role::Operator);
at_least!(Admin, Role::Admin);

async fn allowed(parts: &Parts, app: &App, needed: Role) -> ApiResult<Caller> {
    let caller = parts.extensions.get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| ApiError::internal("a handler that nobody is identified for"))?;
    if caller.role >= needed {
        return Ok(caller);
    }
    let action = format!("{} {}", parts.method, parts.uri.path());
    let denied = caller.change(&action, "", serde_json::json!({"role": caller.role, "needed": needed}));
    if let Err(error) = app.store.audit(&denied, "denied").await {
        tracing::warn!(%error, "a denial could not be recorded");
    }
    let detail = format!("this needs the role {}; the key has {}", role_name(needed), role_name(caller.role));
    Err(ApiError::new("forbidden", detail))
}
