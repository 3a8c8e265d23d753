//! The local directories whose files tables may use.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::arguments::RootArguments;
use crate::output::say;
use crate::script::Refused;

/// Directories that tables may use unless more is allowed.
const VARIABLE: &str = "HIGHWATER_ALLOWED_ROOTS";

/// What is allowed, and what is odd about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Roots {
    pub directories: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl Roots {
    /// What the arguments and the environment allow.
    pub fn of(arguments: &RootArguments) -> Result<Roots, Refused> {
        Roots::new(&arguments.allow_roots, std::env::var_os(VARIABLE).as_deref()).map_err(Refused::Unreadable)
    }

    /// `more`, and the given directories or else the defaults. An argument is a wish of now and must be right; a variable is set for
    /// many runs and machines, of which some may lack a directory.
    fn new(more: &[PathBuf], given: Option<&OsStr>) -> Result<Roots, String> {
        for root in more {
            if let Some(reason) = unusable(root) {
                return Err(format!("--allow-root {}: {reason}", root.display()));
            }
        }
        let mut warnings = Vec::new();
        let mut directories = match given {
            Some(given) => std::env::split_paths(given).filter(|path| !path.as_os_str().is_empty()).collect(),
            None => vec![PathBuf::from("."), std::env::temp_dir()],
        };
        if given.is_some() {
            directories.retain(|root| {
                let reason = unusable(root);
                warnings.extend(reason.map(|reason| format!("{VARIABLE}: {}: {reason}", root.display())));
                reason.is_none()
            });
            if directories.is_empty() && more.is_empty() {
                warnings.push(format!("{VARIABLE} names no directory that is there: tables can use no local files"));
            }
        }
        directories.extend_from_slice(more);
        Ok(Roots { directories, warnings })
    }

    /// Says on stderr what is odd.
    pub fn warn(&self) {
        for warning in &self.warnings {
            say(&format!("warning: {warning}\n"));
        }
    }
}

/// Why there cannot be files below.
fn unusable(root: &Path) -> Option<&'static str> {
    match std::fs::metadata(root) {
        Ok(meta) if meta.is_dir() => None,
        Ok(_) => Some("it is not a directory"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some("there is no such directory"),
        Err(_) => Some("it cannot be opened"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_variable_that_allows_nothing_is_said_and_an_argument_refused() {
        let roots = |more: &[&str], given: Option<&str>| {
            let more: Vec<PathBuf> = more.iter().map(PathBuf::from).collect();
            Roots::new(&more, given.map(OsStr::new)).map(|roots| (roots.directories, roots.warnings.join("\n")))
        };
        let temporary = std::env::temp_dir();
        assert_eq!(roots(&[], None), Ok((vec![PathBuf::from("."), temporary], String::new())));
        let (directories, warnings) = roots(&[], Some("/:/nowhere:/dev/null")).unwrap();
        assert_eq!(directories, [PathBuf::from("/")]);
        assert!(warnings.contains("/nowhere: there is no such directory"), "{warnings}");
        assert!(
            warnings.contains("/dev/null: it is not a directory") && !warnings.contains("no local files"),
            "{warnings}"
        );
        for nothing in ["", ":", "/nowhere"] {
            let (directories, warnings) = roots(&[], Some(nothing)).unwrap();
            assert!(
                directories.is_empty() && warnings.contains("tables can use no local files"),
                "{nothing}: {warnings}"
            );
        }
        assert_eq!(roots(&["/"], Some("")), Ok((vec![PathBuf::from("/")], String::new())));
        assert_eq!(roots(&["/dev/null"], None), Err("--allow-root /dev/null: it is not a directory".into()));
        assert_eq!(roots(&["/nowhere"], None), Err("--allow-root /nowhere: there is no such directory".into()));
    }
}
