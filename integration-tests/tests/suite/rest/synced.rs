//! What reaches the disk, and in which order: content before its name, a name before anybody is told.
//!
//! The calls of the system that matter are seen where they are made: this program has its own `fsync`, `rename` and `linkat`, which note
//! themselves and do what they are for.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use state::{Files, LocalFiles};

#[derive(Clone, Debug, PartialEq)]
enum Call {
    Synced(PathBuf),
    Named { from: PathBuf, to: PathBuf },
}

static CALLS: Mutex<Vec<Call>> = Mutex::new(Vec::new());

fn note(call: Call) {
    CALLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(call);
}

/// SAFETY: `path` ends with a zero byte.
unsafe fn path(path: *const c_char) -> PathBuf {
    // SAFETY: as the caller says.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes())).to_path_buf()
}

/// Instead of the C library's.
#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    if let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{file}")) {
        note(Call::Synced(path));
    }
    // SAFETY: a system call on a plain number.
    unsafe { libc::syscall(libc::SYS_fsync, file) as c_int }
}

/// Instead of the C library's.
///
/// # Safety
/// As there: both end with a zero byte.
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    unsafe {
        note(Call::Named { from: path(from), to: path(to) });
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) as c_int
    }
}

/// Instead of the C library's.
///
/// # Safety
/// As there: both end with a zero byte.
#[unsafe(no_mangle)]
unsafe extern "C" fn linkat(
    from_at: c_int,
    from: *const c_char,
    to_at: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    // SAFETY: as the caller says.
    unsafe {
        note(Call::Named { from: path(from), to: path(to) });
        libc::syscall(libc::SYS_linkat, from_at, from, to_at, to, flags) as c_int
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn what_a_checkpoint_names_is_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let root = std::fs::canonicalize(directory.path()).unwrap();
    let files = LocalFiles::new(&root);
    block_on(async {
        files.write("job/state/a", "one".into()).await.unwrap();
        files.create("job/epochs/b", "two".into()).await.unwrap();
    });
    let calls = CALLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    let at = |wanted: &dyn Fn(&Call) -> bool, what: &str| {
        calls.iter().position(wanted).unwrap_or_else(|| panic!("{what}: {calls:?}"))
    };
    for name in ["job/state/a", "job/epochs/b"] {
        let whole = root.join(name);
        let named = at(&|call| matches!(call, Call::Named { to, .. } if *to == whole), "it gets its name");
        let Call::Named { from, .. } = &calls[named] else { unreachable!("it was looked for") };
        assert!(at(&|call| *call == Call::Synced(from.clone()), "its content is synced") < named, "{calls:?}");
        let folder = whole.parent().unwrap().to_path_buf();
        let entry = calls.iter().rposition(|call| *call == Call::Synced(folder.clone()));
        assert!(entry.is_some_and(|entry| entry > named), "its name is synced: {calls:?}");
        // And the directories that were made for it.
        for made in folder.ancestors().skip(1).take_while(|made| made.starts_with(&root)) {
            at(&|call| *call == Call::Synced(made.to_path_buf()), "a directory is synced");
        }
    }
}

#[test]
fn files_of_checkpoints_keep_their_promises() {
    let directory = tempfile::tempdir().unwrap();
    block_on(state::files::conformance::check_files(&LocalFiles::new(directory.path())));
}
