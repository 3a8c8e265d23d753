//! What is around the server fails: its database, itself in the middle of a change, the disk, a broker. Nothing that was answered is lost,
//! nothing is half done, and whoever asks is told.

mod away;
mod begun;
mod full;
mod killed;
mod many;
mod topics;

use std::path::Path;

/// Lines of all finished files of a directory that a run writes.
pub fn lines(directory: &Path) -> Vec<String> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files
        .flat_map(|path| {
            std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_string).collect::<Vec<_>>()
        })
        .collect()
}
