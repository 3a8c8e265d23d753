//! The views of a run, by name: what the process of its leader answers reads from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use engine::RunError;
use views::{LiveView, PublishedBy, ViewDefinition};

/// Handles of the views that one attempt writes. Clones are the same host.
#[derive(Clone)]
pub struct ViewHost {
    inner: Arc<Inner>,
}

struct Inner {
    views_dir: PathBuf,
    by: PublishedBy,
    live: Mutex<BTreeMap<String, Arc<LiveView>>>,
}

impl ViewHost {
    /// `views_dir`: where views are kept that outlive the run, a directory for each; need not exist yet.
    pub fn new(views_dir: impl Into<PathBuf>, by: PublishedBy) -> ViewHost {
        ViewHost { inner: Arc::new(Inner { views_dir: views_dir.into(), by, live: Mutex::default() }) }
    }

    /// A view that this attempt writes. Its [`LiveView::latest`] is none until an epoch may be shown.
    pub fn view(&self, name: &str) -> Option<Arc<LiveView>> {
        self.inner.live.lock().expect("nothing panics while it holds the views").get(name).cloned()
    }

    /// All of them, by name.
    pub fn views(&self) -> Vec<Arc<LiveView>> {
        self.inner.live.lock().expect("nothing panics while it holds the views").values().cloned().collect()
    }

    pub(super) fn views_dir(&self) -> &PathBuf {
        &self.inner.views_dir
    }

    pub(super) fn by(&self) -> &PublishedBy {
        &self.inner.by
    }

    pub(super) fn begin(&self, definition: &Arc<ViewDefinition>) -> Result<Arc<LiveView>, RunError> {
        let mut live = self.inner.live.lock().expect("nothing panics while it holds the views");
        if live.contains_key(&definition.name) {
            let message = format!("two tables of this job write the view {}", definition.name);
            return Err(RunError::user("duplicate_view", message).hint("give one of them another 'view.name'"));
        }
        let view = Arc::new(LiveView::new(definition.clone()));
        live.insert(definition.name.clone(), view.clone());
        Ok(view)
    }
}
