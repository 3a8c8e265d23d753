//! Writes staged files on a thread of its own: the worker only encodes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use engine::batch::Permit;
use engine::{Committable, Prepared, RunError};
use object_store::{MultipartUpload, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::error::{FileError, Result};
use super::staging::{self, Lock};
use super::store::{Store, output_failed, sync, sync_dir};

/// Parts of an upload to an object store; smaller files are put at once.
const PART_BYTES: usize = 8 << 20;

/// What the writing thread is told, in order.
pub enum Command {
    /// `path` is where the bytes go: a staged file, or an object's key.
    Open {
        file: u64,
        path: String,
    },
    /// The permit counts the batch that the bytes were made from until they are written.
    Data {
        file: u64,
        bytes: Vec<u8>,
        permit: Option<Arc<Permit>>,
    },
    Close {
        file: u64,
    },
    /// Everything before this is closed and durable, or the answer is why not.
    Prepared {
        reply: Prepared,
        committable: Committable,
    },
    /// The same, for a caller that waits.
    Synced {
        reply: std::sync::mpsc::Sender<Result<(), RunError>>,
    },
    /// The writer ends: local files that it opened after the last of the two above are removed.
    End {
        reply: std::sync::mpsc::Sender<()>,
    },
}

/// Starts the thread; it ends when the sender is dropped.
pub fn start(store: Store, tokio: &Handle, failed: mpsc::UnboundedSender<RunError>) -> mpsc::UnboundedSender<Command> {
    let (sender, mut commands) = mpsc::unbounded_channel();
    let handle = tokio.clone();
    tokio.spawn_blocking(move || {
        let mut uploads = Uploads {
            store,
            handle,
            open: HashMap::new(),
            unsynced: BTreeSet::new(),
            unnamed: BTreeMap::new(),
            lock: None,
        };
        let mut error: Option<RunError> = None;
        while let Some(command) = commands.blocking_recv() {
            let done = match (&error, command) {
                (None, Command::Open { file, path }) => uploads.open(file, path),
                (None, Command::Data { file, bytes, permit: _permit }) => uploads.write(file, bytes),
                (None, Command::Close { file }) => uploads.close(file),
                (None, Command::Prepared { reply, committable }) => {
                    let synced = uploads.sync();
                    reply.done(synced.as_ref().map(|()| committable).map_err(run_error));
                    synced
                }
                (None, Command::Synced { reply }) => {
                    let synced = uploads.sync();
                    // Nobody waits when the run is over.
                    let _ = reply.send(synced.as_ref().copied().map_err(run_error));
                    synced
                }
                (_, Command::End { reply }) => {
                    uploads.end();
                    // It does not wait for ever.
                    let _ = reply.send(());
                    Ok(())
                }
                (Some(error), Command::Prepared { reply, .. }) => {
                    reply.done(Err(error.clone()));
                    Ok(())
                }
                (Some(error), Command::Synced { reply }) => {
                    let _ = reply.send(Err(error.clone()));
                    Ok(())
                }
                (Some(_), _) => Ok(()),
            };
            if let Err(first) = done {
                let first = run_error(&first);
                let _ = failed.send(first.clone());
                error = Some(first);
            }
        }
    });
    sender
}

fn run_error(error: &FileError) -> RunError {
    error.clone().into()
}

struct Uploads {
    store: Store,
    handle: Handle,
    open: HashMap<u64, Upload>,
    /// Directories with entries that are not durable yet.
    unsynced: BTreeSet<PathBuf>,
    /// Local files that neither a commit nor a snapshot can name, by number.
    unnamed: BTreeMap<u64, PathBuf>,
    /// On the directory of the local files, from the first one on.
    lock: Option<Lock>,
}

enum Upload {
    Local { file: fs::File, shown: String },
    Object { key: String, buffer: Vec<u8>, parts: Option<Box<dyn MultipartUpload>> },
}

impl Uploads {
    fn open(&mut self, file: u64, path: String) -> Result<()> {
        // A file where a directory should be is a failure of writing; what is not allowed stays that.
        let local = self.store.local(&path).map_err(|error| match error {
            FileError::LocationInvalid { reason, .. } => FileError::OutputFailed { shown: path.clone(), reason },
            other => other,
        })?;
        let upload = match local {
            Some(local) => {
                let failed = |error: io::Error| output_failed(&path, &error);
                let opened = staging::create(&local, &mut self.lock).map_err(failed)?;
                self.unsynced.insert(local.parent().expect("a file is in a directory").to_path_buf());
                self.unnamed.insert(file, local);
                Upload::Local { file: opened, shown: path }
            }
            None => Upload::Object { key: path, buffer: vec![], parts: None },
        };
        self.open.insert(file, upload);
        Ok(())
    }

    fn write(&mut self, file: u64, bytes: Vec<u8>) -> Result<()> {
        let store = &self.store;
        match self.open.get_mut(&file).expect("a file is opened before it is written") {
            Upload::Local { file, shown } => file.write_all(&bytes).map_err(|error| output_failed(shown, &error)),
            Upload::Object { key, buffer, parts } => {
                buffer.extend_from_slice(&bytes);
                if buffer.len() < PART_BYTES {
                    return Ok(());
                }
                let part = std::mem::take(buffer);
                upload_part(store, &self.handle, key, parts, part)
            }
        }
    }

    fn close(&mut self, file: u64) -> Result<()> {
        match self.open.remove(&file).expect("a file is opened before it is closed") {
            Upload::Local { file, shown } => {
                let written = faults::hit("sink.file.unsynced").map_err(io::Error::from);
                written.and_then(|()| sync(&file)).map_err(|error| output_failed(&shown, &error))
            }
            Upload::Object { key, buffer, parts: None } => {
                let Store::Objects { objects, .. } = &self.store else {
                    unreachable!("an object is in an object store")
                };
                let put = self.handle.block_on(objects.put(&self.store.key(&key)?, buffer.into()));
                put.map(|_| ()).map_err(|error| self.store.failed("writing", &key, &error))
            }
            Upload::Object { key, buffer, mut parts } => {
                if !buffer.is_empty() {
                    upload_part(&self.store, &self.handle, &key, &mut parts, buffer)?;
                }
                let mut parts = parts.expect("there is an upload with parts");
                self.handle
                    .block_on(parts.complete())
                    .map(|_| ())
                    .map_err(|error| self.store.failed("writing", &key, &error))
            }
        }
    }

    /// Files are durable when they are closed; this makes their names durable.
    fn sync(&mut self) -> Result<()> {
        for directory in std::mem::take(&mut self.unsynced) {
            sync_dir(&directory).map_err(|error| output_failed(&directory.display().to_string(), &error))?;
        }
        let open = &self.open;
        self.unnamed.retain(|file, _| open.contains_key(file));
        Ok(())
    }

    fn end(&mut self) {
        self.open.clear();
        let mut directories = BTreeSet::new();
        for path in std::mem::take(&mut self.unnamed).into_values() {
            // An abort may have been here before.
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("a staged file stays at {}: {error}", path.display());
            }
            directories.extend(path.parent().map(PathBuf::from));
        }
        if let (Some(lock), Some(directory)) = (self.lock.take(), directories.pop_first()) {
            lock.remove(&directory);
        }
    }
}

fn upload_part(
    store: &Store,
    handle: &Handle,
    key: &str,
    parts: &mut Option<Box<dyn MultipartUpload>>,
    bytes: Vec<u8>,
) -> Result<()> {
    let Store::Objects { objects, .. } = store else { unreachable!("an object is in an object store") };
    let failed = |error: object_store::Error| store.failed("writing", key, &error);
    let parts = match parts {
        Some(parts) => parts,
        None => parts.insert(handle.block_on(objects.put_multipart(&store.key(key)?)).map_err(failed)?),
    };
    handle.block_on(parts.put_part(bytes.into())).map_err(failed)
}
