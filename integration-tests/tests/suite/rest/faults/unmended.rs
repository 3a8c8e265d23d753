//! NOT PART OF THE SUITE (no `mod` names this file): the test fails today. Add `mod unmended;` to `faults.rs` to run it; it moves to
//! `full.rs` when what it shows is mended: a run that ends while its own directory has no room leaves no outcome, and is taken for lost.

use std::time::Duration;

use integration_tests::rest::Highwater;
use test_support::process::wait_until;

/// A run that has committed everything is `finished`, although there was no room to write that down when it ended.
#[test]
fn a_run_that_ends_while_the_disk_of_the_server_is_full_has_its_outcome_when_there_is_room() {
    let server = Highwater::with_small_disks(16, 16);
    let out = server.files().join("ending");
    let sql = format!(
        "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'number-of-rows' = '1500',
           'fields.n.kind' = 'sequence');
         CREATE TABLE f (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO f SELECT n FROM s;",
        out.display()
    );
    let (_, ending) = server.submit("ending", &sql);
    server.wait_for_run(&ending, "running", |run| run["state"] == "running");
    let ballast = super::full::fill(&server.on_disk(&server.data()));
    let out = server.on_disk(&out);
    wait_until("all rows are there", Duration::from_secs(20), || super::lines(&out).len() == 1500);
    std::thread::sleep(Duration::from_secs(1));
    std::fs::remove_file(ballast).unwrap();
    let ended = server.wait_for_end(&ending);
    assert_eq!(ended["state"], "finished", "{ended}");
}
