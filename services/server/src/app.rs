//! What all requests share.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use metadata::MetadataStore;
use tokio::sync::{Semaphore, watch};
use views::{ViewError, ViewFiles};

use crate::attempts::Attempts;
use crate::auth::Keys;
use crate::metrics::ServerMetrics;
use crate::rates::Rates;
use crate::sealing::Sealing;

/// A handle to the server's parts; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub store: Arc<dyn MetadataStore>,
    pub config: Settled,
    pub sealing: Sealing,
    pub keys: Keys,
    pub rates: Rates,
    pub attempts: Attempts,
    pub metrics: ServerMetrics,
    /// Idempotency keys of requests that are being answered.
    pub in_flight: Mutex<HashSet<(String, String, String)>>,
    /// The durable versions of views, by name; what was read last is kept open.
    pub view_files: Mutex<HashMap<String, Arc<ViewFiles>>>,
    /// A permit for each query that may run.
    pub queries: Arc<Semaphore>,
    /// True once the server ends.
    pub stopping: watch::Sender<bool>,
}

/// The configuration with what follows from it.
pub struct Settled {
    pub config: crate::Config,
    /// The server listens on a loopback address only.
    pub loopback: bool,
    /// The program, to start processes of runs with.
    pub program: std::path::PathBuf,
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

    /// The durable versions of a view.
    pub fn view_files(&self, view: &str) -> Result<Arc<ViewFiles>, ViewError> {
        let mut all = self.view_files.lock().expect("nothing panics while it holds the map");
        if let Some(files) = all.get(view) {
            return Ok(files.clone());
        }
        let files = Arc::new(ViewFiles::new(&self.config.data.join("views"), view)?);
        all.insert(view.to_string(), files.clone());
        Ok(files)
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
