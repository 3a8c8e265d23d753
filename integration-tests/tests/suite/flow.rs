//! Flow control: timely's queues are unbounded, so what is under way between processes is bounded by the sources alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::support;

/// 500,000 rows of about 1,050 bytes, read by the leader; half of them go to the other process. Sessions get every row whole.
const SCRIPT: &str = "CREATE TABLE g (k BIGINT, v BIGINT, pad STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH (\
    'connector' = 'datagen', 'number-of-rows' = '500000', 'fields.k.min' = '0', 'fields.k.max' = '99', \
    'fields.v.kind' = 'sequence', 'fields.pad.length' = '1000');\n\
    SELECT k, COUNT(*) AS n, SUM(v) AS total, MAX(pad) AS most \
    FROM TABLE(SESSION(TABLE g PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY k, window_start, window_end;";

/// The largest that a process may get, in MiB. Measured: 97 with the limits below, 276 with a large budget, 397 with large epochs, too.
const MEMORY_MAX_MIB: u64 = 160;

#[test]
fn a_process_that_is_stopped_again_and_again_does_not_let_rows_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("flow.sql"), SCRIPT).unwrap();
    let undisturbed = support::highwater(folder.path(), ["run", "flow.sql", "-o", "json", "-q"]);
    assert_eq!(undisturbed.code, Some(0), "{}", undisturbed.report());
    let settings = ["epoch.max-bytes=4MiB", "memory.in-flight=8MiB", "source.batch-rows=512"];
    let (slowed, memory) = slowed(folder.path(), &settings);
    assert_eq!(sorted(&slowed), sorted(&undisturbed.stdout), "the rows are all there, once");
    assert_eq!(memory.len(), 2, "both processes were looked at");
    assert!(memory.values().all(|most| *most <= MEMORY_MAX_MIB), "MiB per process: {memory:?}");
}

/// Runs the script in two processes of which the second is stopped most of the time. Returns what was printed, and by process the most
/// memory in MiB.
fn slowed(folder: &Path, settings: &[&str]) -> (String, BTreeMap<u32, u64>) {
    let printed = std::fs::File::create(folder.join("printed")).unwrap();
    let mut command = support::command(folder);
    command.args(["run", "flow.sql", "-o", "json", "-q", "--processes", "2"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let mut run = command.stdin(Stdio::null()).stdout(printed).spawn().unwrap();
    let mut memory = BTreeMap::new();
    let deadline = Instant::now() + support::LIMIT;
    let mut stops = 0;
    while run.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            run.kill().unwrap();
            panic!("the run did not end, after {stops} stops");
        }
        let other = children(&run);
        for pid in other.iter().copied().chain([run.id()]) {
            memory.entry(pid).and_modify(|most: &mut u64| *most = (*most).max(peak_mib(pid))).or_insert(peak_mib(pid));
        }
        // Far below the heartbeat's limit, but four fifths of the time.
        other.iter().for_each(|pid| signal(*pid, "STOP"));
        std::thread::sleep(Duration::from_millis(200));
        children(&run).iter().for_each(|pid| signal(*pid, "CONT"));
        std::thread::sleep(Duration::from_millis(50));
        stops += other.len();
    }
    assert!(run.wait().unwrap().success());
    assert!(stops > 3, "the process was slowed: {stops} stops");
    memory.retain(|_, most| *most > 0);
    (std::fs::read_to_string(folder.join("printed")).unwrap(), memory)
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn children(run: &Child) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", run.id())).into_iter().flatten().flatten();
    let listed = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    listed.flat_map(|pids| pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()).collect()
}

/// The most memory that a process has had; 0 if it is gone.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
}

/// A process that is gone gets no signal, which the end of the run shows.
fn signal(pid: u32, name: &str) {
    let _ = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status();
}
