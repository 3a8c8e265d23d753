//! What every place for files keeps.

use bytes::Bytes;

use super::{Creation, FileError, FileRef, Files, get, put, sha256};

/// The promises of [`Files`], for tests of every implementation: `files` is an empty place.
pub async fn check_files(files: &dyn Files) {
    let read = async |path: &str| files.read(path).await.expect("files can be read");
    assert_eq!(read("a/b").await, None);
    let first = put(files, "a/b", Bytes::from_static(b"one")).await.expect("files can be written");
    assert_eq!((first.bytes, first.sha256.len()), (3, 64));
    assert_eq!(get(files, &first).await.expect("it was written"), "one");
    let create = async |content: &'static str| files.create("a/c", content.into()).await.expect("files can be created");
    assert_eq!(create("two").await, Creation::Created);
    assert_eq!(create("three").await, Creation::Exists("two".into()), "of two that create, one does");
    put(files, "ab/d", Bytes::new()).await.expect("files can be empty");
    let names = async |prefix: &str| {
        let listed = files.list(prefix).await.expect("files can be listed");
        listed.into_iter().map(|file| (file.path, file.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(names("a").await, [("a/b".to_string(), 3), ("a/c".to_string(), 3)]);
    assert_eq!(names("").await.len(), 3);
    assert_eq!(names("none").await, []);
    let other = FileRef { sha256: sha256(b"two"), ..first.clone() };
    let damaged = get(files, &other).await.expect_err("the content is not this");
    assert!(matches!(damaged, FileError::Damaged { .. }), "{damaged}");
    for _ in 0..2 {
        files.remove("a/b").await.expect("files can be removed, also those that are not there");
    }
    let missing = get(files, &first).await.expect_err("it was removed");
    assert!(matches!(missing, FileError::Missing { .. }), "{missing}");
}
