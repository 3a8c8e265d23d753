//! Damaged Parquet files: an error that names the file, or the right number of rows; never a panic.

use std::fs;
use std::sync::Arc;

use engine::{RunError, Source};

use super::sources::parquet_bytes;
use crate::files::{AllowedRoots, FilesystemSource, Reach};
use crate::testing::{all_columns, collect, files_node, run, sample, starts};

fn read(path: &std::path::Path) -> Result<usize, RunError> {
    let node = files_node(path, "parquet", sample::COLUMNS);
    let graph::SourceConnector::Filesystem(options) = &node.connector else { panic!("no files") };
    let source: Arc<dyn Source> = Arc::new(FilesystemSource::open(
        &node,
        options,
        all_columns(&node),
        &Reach::everywhere(AllowedRoots::new([path.parent().unwrap()])),
    )?);
    run(async {
        let splits = source.splits().await?;
        Ok(collect(&source, starts(&splits), 100).await?.iter().map(|seen| seen.len).sum())
    })
}

fn check(name: &str, bytes: &[u8], path: &std::path::Path, good: usize) -> bool {
    fs::write(path, bytes).unwrap();
    match read(path) {
        Ok(rows) => {
            assert_eq!(rows, good, "{name}");
            false
        }
        Err(error) => {
            let known = ["input_file_invalid", "input_schema_mismatch", "input_null", "input_out_of_range"];
            assert!(known.contains(&error.code.as_str()), "{name}: {error:?}");
            assert!(error.message.contains("f.parquet"), "{name}: {error:?}");
            true
        }
    }
}

#[test]
fn truncated_files_are_refused_wherever_they_are_cut() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("f.parquet");
    let good = parquet_bytes(&[sample::rows(0, 400)], 100);
    for part in 0..20 {
        let cut = good.len() * part / 20;
        assert!(check(&format!("cut at {cut}"), &good[..cut], &path, 400), "cut at {cut} of {} was read", good.len());
    }
    assert!(check("one byte short", &good[..good.len() - 1], &path, 400));
    assert!(check("text", b"id,name\n1,a\n2,b\n", &path, 400));
    let mut encrypted = good.clone();
    let end = encrypted.len();
    encrypted[end - 4..].copy_from_slice(b"PARE");
    fs::write(&path, &encrypted).unwrap();
    assert!(read(&path).unwrap_err().message.contains("encrypted"));
}

#[test]
fn flipped_bytes_never_end_the_process() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("f.parquet");
    let good = parquet_bytes(&[sample::rows(0, 200)], 100);
    let footer = u32::from_le_bytes(good[good.len() - 8..good.len() - 4].try_into().unwrap()) as usize;
    let footer_start = good.len() - 8 - footer;
    let mut refused = 0;
    // All of the footer in steps, and as many places in the pages.
    let places = (footer_start..good.len()).step_by(5).chain((4..footer_start).step_by(footer_start / 150));
    for at in places {
        for flip in [0xff, 0x01, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            refused += usize::from(check(&format!("byte {at} ^ {flip:#x}"), &bytes, &path, 200));
        }
    }
    assert!(refused > 100, "damage is noticed: {refused}");
}
