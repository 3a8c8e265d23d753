//! What all requests share.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use api::IdKind;
use metadata::MetadataStore;
use state::Files;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;
use views::{ViewError, ViewFiles};

use crate::attempts::Attempts;
use crate::attempts::savepoints::Savepoints;
use crate::auth::Keys;
use crate::metrics::ServerMetrics;
use crate::rates::Rates;
use crate::sealing::Sealing;

/// A handle to the server's parts; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub store: Arc<dyn MetadataStore>,
    /// Of this server's leadership, for what is guarded by it.
    pub term: i64,
    pub config: Settled,
    pub sealing: Sealing,
    pub keys: Keys,
    pub rates: Rates,
    pub attempts: Attempts,
    pub savepoints: Savepoints,
    pub metrics: ServerMetrics,
    /// Idempotency keys of requests that are being answered.
    pub in_flight: Mutex<HashSet<(String, String, String)>>,
    /// The durable versions of views, by job and name; what was read last is kept open.
    pub view_files: Mutex<HashMap<(Uuid, String), Arc<ViewFiles>>>,
    /// The place of all checkpoints.
    pub checkpoints: Arc<dyn Files>,
    /// A permit for each query that may run.
    pub queries: Arc<Semaphore>,
    /// A permit for each process that checks tables and connections.
    pub checks: Semaphore,
    /// A permit for each process that writes or reads a savepoint.
    pub copies: Semaphore,
    /// True once the server ends.
    pub stopping: watch::Sender<bool>,
}

/// The configuration with what follows from it.
pub struct Settled {
    /// Its `allow_roots` are directories.
    pub config: crate::Config,
    /// Places of object stores that savepoints may be in.
    pub allowed_places: Vec<String>,
    /// The server listens on a loopback address only.
    pub loopback: bool,
    /// The program, to start processes of runs with.
    pub program: PathBuf,
}

impl Settled {
    /// Where savepoints may be that clients name a place for.
    pub fn savepoint_roots(&self) -> Vec<String> {
        let directories = self.config.allow_roots.iter().map(|root| root.display().to_string());
        directories.chain(self.allowed_places.iter().cloned()).collect()
    }
}

impl Deref for Settled {
    type Target = crate::Config;

    fn deref(&self) -> &crate::Config {
        &self.config
    }
}

impl App {
    pub fn new(parts: Parts) -> App {
        App(Arc::new(parts))
    }

    /// Where the views of a job are. A name may pass from one job to another; rows do not.
    pub fn views_dir(&self, job_id: Uuid) -> PathBuf {
        self.config.data.join("views").join(IdKind::Job.text(job_id))
    }

    /// The durable versions of a view.
    pub fn view_files(&self, view: &metadata::View) -> Result<Arc<ViewFiles>, ViewError> {
        let mut all = self.view_files.lock().expect("nothing panics while it holds the map");
        let name = (view.job_id, view.name.clone());
        if let Some(files) = all.get(&name) {
            return Ok(files.clone());
        }
        let files = Arc::new(ViewFiles::new(&self.views_dir(view.job_id), &view.name)?);
        all.insert(name, files.clone());
        Ok(files)
    }

    /// Forgets the views of a job that was deleted.
    pub fn forget_views(&self, job_id: Uuid) {
        self.view_files.lock().expect("nothing panics while it holds the map").retain(|(job, _), _| *job != job_id);
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
