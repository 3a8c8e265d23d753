//! The service over REST, against the real program. Every answer in here is checked against the served OpenAPI document.

mod access;
mod bad_requests;
mod bad_scripts;
mod bank;
mod broken;
mod cases;
mod chaos;
mod clients;
mod document;
mod exactly;
mod failpoints;
mod faults;
mod jobs;
mod play;
mod proxy;
mod queries;
mod recovery;
mod restarts;
mod runs;
mod savepoints;
mod storage;
mod synced;
mod views;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use integration_tests::rest::Highwater;

/// A server that tests share while one of them runs: for whatever keeps to names of its own, and leaves keys alone.
fn shared() -> Arc<Highwater> {
    static SERVER: Mutex<Weak<Highwater>> = Mutex::new(Weak::new());
    let mut server = SERVER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    server.upgrade().unwrap_or_else(|| {
        let cases = integration_tests::program::repository().join("integration-tests/cases");
        let new = Arc::new(Highwater::with(&["--allow-root", cases.to_str().expect("the path is text")]));
        *server = Arc::downgrade(&new);
        new
    })
}

/// A name that no other test has.
fn fresh(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Bids of three auctions: 60, 400 and 5.
const BIDS: &str = "{\"auction\":1,\"price\":10}\n{\"auction\":2,\"price\":400}\n{\"auction\":1,\"price\":50}\n{\"auction\":3,\"price\":5}\n";

/// Sums per auction, over a file, into a view: ends by itself.
fn totals(server: &Highwater, view: &str) -> String {
    let path = server.file(&format!("{view}.jsonl"), BIDS);
    format!(
        "CREATE TABLE bids (auction BIGINT, price BIGINT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json');
         CREATE TABLE {view} (auction BIGINT, total BIGINT, PRIMARY KEY (auction) NOT ENFORCED) WITH ('connector' = 'view');
         INSERT INTO {view} SELECT auction, SUM(price) FROM bids GROUP BY auction;"
    )
}

/// Counts per key over rows that never end, into a view.
fn counts(view: &str) -> String {
    format!(
        "SET 'epoch.interval' = '100ms';
         CREATE TABLE ticks (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'fields.n.kind' = 'sequence');
         CREATE TABLE {view} (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
         INSERT INTO {view} SELECT n % 10, COUNT(*) FROM ticks GROUP BY n % 10;"
    )
}
