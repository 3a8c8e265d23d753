//! Which files a table's path means: a file, a directory, or a pattern; and what the directories' names say about their rows.

use std::path::Path;

use glob::{MatchOptions, Pattern};

use super::error::{FileError, Result};
use super::manifest;
use super::store::{FileMeta, Location, Store};

/// What Hive writes for NULL.
pub const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// Files and directories that hold no rows: hidden ones, and those of writers in progress.
pub fn is_visible(name: &str) -> bool {
    !name.starts_with('.') && !name.starts_with('_')
}

/// All files of a path, in the order of their names.
///
/// A directory means the visible files at any depth below it; where our sink's manifests are, only the files that they name. In a
/// pattern `*`, `?` and `[..]` stay within a name, `**` spans directories; hidden files are not matched.
///
/// # Errors
/// `input_not_found` if there is neither a file nor a directory, or nothing matches the pattern; `location_invalid` if there is something
/// else.
pub async fn list(location: &Location) -> Result<Vec<FileMeta>> {
    let store = &location.store;
    let path = trimmed(&location.path);
    let not_found = |looked_for: String| FileError::InputNotFound { shown: location.shown(), looked_for };
    if !location.path.ends_with('/')
        && let Some(file) = store.head(path).await?
    {
        return Ok(vec![file]);
    }
    let exists = match store.local(path)? {
        Some(local) => match local.metadata() {
            Ok(meta) if !meta.is_dir() && !meta.is_file() => {
                let reason = "it is a pipe, a socket or a device; only files and directories can be read".to_string();
                return Err(FileError::LocationInvalid { shown: location.shown(), reason });
            }
            meta => meta.is_ok_and(|meta| meta.is_dir()),
        },
        // Object stores have no directories: one is there if something is in it.
        None => !store.list(path, |_| true).await?.is_empty(),
    };
    if exists {
        if let Some(files) = manifest::committed_files(store, path).await? {
            return Ok(files);
        }
        let files = store.list(path, is_visible).await?;
        return Ok(files.into_iter().filter(|file| visible_below(&file.path, path)).collect());
    }
    let Some((base, pattern)) = split_pattern(path) else {
        return Err(not_found("there is no file, and no directory, with this name".into()));
    };
    let pattern = Pattern::new(pattern).map_err(|error| FileError::LocationInvalid {
        shown: location.shown(),
        reason: format!("its pattern is wrong: {error}"),
    })?;
    let options =
        MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };
    let mut files = store.list(base, is_visible).await?;
    files.retain(|file| {
        visible_below(&file.path, base)
            && below(&file.path, base).is_some_and(|name| pattern.matches_with(name, options))
    });
    if files.is_empty() {
        let base = if base.is_empty() { "the start".to_string() } else { store.shown(base) };
        return Err(not_found(format!("no file below {base} matches the pattern")));
    }
    Ok(files)
}

/// The path without slashes at its end.
fn trimmed(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.starts_with('/') => "/",
        trimmed => trimmed,
    }
}

/// The directory before the first name with pattern characters, and the rest; `None` if there are no such characters.
fn split_pattern(path: &str) -> Option<(&str, &str)> {
    let first = path.find(['*', '?', '['])?;
    Some(match path[..first].rfind('/') {
        Some(0) => ("/", &path[1..]),
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => ("", path),
    })
}

/// The file's path from the directory on.
pub fn below<'a>(file: &'a str, directory: &str) -> Option<&'a str> {
    match directory {
        "" => Some(file),
        _ => file.strip_prefix(directory).map(|rest| rest.trim_start_matches('/')),
    }
}

fn visible_below(file: &str, directory: &str) -> bool {
    below(file, directory).is_some_and(|name| name.split('/').all(is_visible))
}

/// The value of a partition column in the names of a file's directories; inner `None` is NULL.
pub fn partition_value(path: &str, column: &str) -> Option<Option<String>> {
    let directories = Path::new(path).parent()?;
    directories.to_str()?.split('/').rev().find_map(|name| {
        let value = name.split_once('=').filter(|(key, _)| unescaped(key) == column)?.1;
        Some((value != NULL_PARTITION).then(|| unescaped(value)))
    })
}

/// The directory name of a partition value, as Hive writes it; but a text that is Hive's word for NULL stays a text.
pub fn partition_directory(column: &str, value: Option<&str>) -> String {
    let value = match value {
        None => NULL_PARTITION.to_string(),
        Some(NULL_PARTITION) => format!("%{:02X}{}", NULL_PARTITION.as_bytes()[0], &NULL_PARTITION[1..]),
        Some(text) => escaped(text),
    };
    format!("{}={value}", escaped(column))
}

/// `%XX` for bytes that mean something in paths, patterns or keys.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        if c.is_control() || "\"#%'*/:=?\\[]{}^<>|~`&".contains(c) || at == 0 && c == '.' {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
        } else {
            out.push(c);
        }
    }
    out
}

fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        match hex {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A directory's path and a name in it.
pub fn join(directory: &str, name: &str) -> String {
    match directory {
        "" => name.to_string(),
        _ => format!("{}/{name}", directory.trim_end_matches('/')),
    }
}

impl Store {
    /// Whether a local directory exists; object stores have none.
    pub fn is_local_dir(&self, path: &str) -> Result<bool> {
        Ok(self.local(path)?.is_some_and(|local| local.is_dir()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::files::store::AllowedRoots;
    use std::fs;

    fn names(root: &Path, path: &str) -> Result<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let location = Location {
            store: Store::Local(AllowedRoots::new([root])),
            path: root.join(path).to_string_lossy().into_owned(),
        };
        let files = runtime.block_on(list(&location))?;
        Ok(files.iter().map(|file| below(&file.path, &root.to_string_lossy()).unwrap().to_string()).collect())
    }

    #[test]
    fn paths_mean_files_directories_and_patterns() {
        let root = tempfile::tempdir().unwrap();
        for name in
            ["a.json", "b.csv", "_c.json", ".d.json", "x/e.json", "x/y/f.json", "_z/g.json", "w[1].json", "k=1/h.json"]
        {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir(root.path().join("empty")).unwrap();
        let found = |path: &str| names(root.path(), path).unwrap().join(" ");
        assert_eq!(found(""), "a.json b.csv k=1/h.json w[1].json x/e.json x/y/f.json");
        assert_eq!(found("*.json"), "a.json w[1].json");
        assert_eq!(found("?.csv"), "b.csv");
        assert_eq!(found("**/*.json"), "a.json k=1/h.json w[1].json x/e.json x/y/f.json");
        assert_eq!(found("x/*.json"), "x/e.json");
        assert_eq!(found("x/"), "x/e.json x/y/f.json");
        assert_eq!(found("[ab].*"), "a.json b.csv");
        assert_eq!(found("w[1].json"), "w[1].json", "a name that exists is no pattern");
        assert_eq!(found("empty"), "");
        for missing in ["nothing.json", "*.parquet", "nowhere/*.json", "a.json/"] {
            assert!(matches!(names(root.path(), missing), Err(FileError::InputNotFound { .. })), "{missing}");
        }
        assert!(matches!(names(root.path(), "a[.json"), Err(FileError::LocationInvalid { .. })));
    }

    #[test]
    fn partitions_are_read_as_they_were_written() {
        for value in ["1", "2001-01-01 10:00:00", "a/b=c%", "", "ü", "..", "a+b c", NULL_PARTITION, "__", "%5F"] {
            let path = format!("data/x={value}/{}/f", partition_directory("my key", Some(value)));
            let path = if value.contains('/') { path.replace(&format!("x={value}/"), "") } else { path };
            assert_eq!(partition_value(&path, "my key"), Some(Some(value.to_string())), "{path}");
        }
        assert_eq!(partition_value("d/k=__HIVE_DEFAULT_PARTITION__/f", "k"), Some(None));
        assert_eq!(partition_value("d/k=1/k=2/f", "k"), Some(Some("2".into())));
        assert_eq!(partition_value("d/k=1", "k"), None, "the file's own name says nothing");
    }

    #[test]
    fn links_and_dots_do_not_lead_out_of_the_roots() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "x").unwrap();
        fs::write(root.path().join("own"), "x").unwrap();
        fs::create_dir(root.path().join("dir")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("dir/link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("new"), root.path().join("dangling")).unwrap();
        std::os::unix::fs::symlink(root.path().join("own"), root.path().join("inner")).unwrap();
        let outside_name = outside.path().file_name().unwrap().to_str().unwrap();
        for (path, code) in [
            ("own", "ok"),
            ("inner", "ok"),
            ("dir/../own", "ok"),
            ("out/secret", "location_not_allowed"),
            ("dir/link", "location_not_allowed"),
            ("dir", "location_not_allowed"),
            ("dir/*", "location_not_allowed"),
            (&format!("../{outside_name}/secret"), "location_not_allowed"),
            ("../../etc/passwd", "location_not_allowed"),
            ("out/new", "location_not_allowed"),
            ("nowhere/../../x", "location_invalid"),
            ("dangling", "location_invalid"),
            ("nothing", "input_not_found"),
        ] {
            let found =
                names(root.path(), path).map_or_else(|error| engine::RunError::from(error).code, |_| "ok".to_string());
            assert_eq!(found, code, "{path}");
        }
        let error = engine::RunError::from(names(root.path(), "out/secret").unwrap_err());
        assert!(error.hint.unwrap().contains("--allow-root DIR"));
    }
}
