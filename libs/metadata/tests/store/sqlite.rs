//! What only the store in a file must do.

use metadata::sqlite::SqliteStore;
use metadata::*;
use sqlx::{Connection, SqliteConnection};

use crate::fixtures::*;

#[tokio::test]
async fn a_file_belongs_to_one_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metadata.db");
    let first = SqliteStore::open(&file).await.unwrap();
    let job = stored(&first, "a").await;
    let term = first.lead("one").await.unwrap();
    let error = SqliteStore::open(&file).await.err().unwrap();
    assert!(matches!(error, MetadataError::Owned(_)), "{error:?}");
    assert!(!error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    drop(first);
    let second = SqliteStore::open(&file).await.unwrap();
    assert_eq!(second.job(job.job_id).await.unwrap(), job);
    assert_eq!(second.lead("two").await.unwrap(), term + 1);
    second.close().await;
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metadata.db");
    let text = "no database at all, but some text that is long enough to be taken for a header".repeat(40);
    std::fs::write(&file, &text).unwrap();
    let error = SqliteStore::open(&file).await.err().unwrap();
    assert!(matches!(error, MetadataError::Unusable(_)), "{error:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);

    let absent = folder.path().join("no such folder").join("metadata.db");
    let error = SqliteStore::open(&absent).await.err().unwrap();
    assert!(!error.to_string().contains("no such folder/"), "{error}");
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metadata.db");
    SqliteStore::open(&file).await.unwrap().close().await;
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (999, 'from the future', TRUE, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let error = SqliteStore::open(&file).await.err().unwrap();
    assert!(matches!(&error, MetadataError::Unusable(why) if why.contains("newer")), "{error:?}");
}

/// As SQLite does when the disk is full: the transaction is over before anybody has ended it.
#[tokio::test]
async fn a_transaction_that_the_database_ends_by_itself_is_no_trouble_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metadata.db");
    let store = SqliteStore::open(&file).await.unwrap();
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let trigger = "CREATE TRIGGER no_room BEFORE INSERT ON job BEGIN SELECT RAISE(ROLLBACK, 'no room'); END";
    sqlx::raw_sql(trigger).execute(&mut connection).await.unwrap();
    let refused = job("refused");
    let error = store.create_job(&refused, &version(&refused), &change("job.create")).await.unwrap_err();
    assert!(error.to_string().contains("no room"), "{error:?}");
    sqlx::raw_sql("DROP TRIGGER no_room").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    stored(&store, "next").await;
    assert!(matches!(store.job(refused.job_id).await, Err(MetadataError::NotFound { .. })));
}
