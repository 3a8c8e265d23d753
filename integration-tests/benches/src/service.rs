//! The service as a whole: what a server and its runs take when there is little to do, and how quickly it answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use integration_tests::rest::Highwater;
use serde_json::{Value, json};
use test_support::kafka::Kafka;

use crate::report::Section;
use crate::workloads::Thresholds;

const PATIENCE: Duration = Duration::from_secs(120);
/// Keep-alive connections that ask at once.
const CLIENTS: usize = 64;
const LISTED_JOBS: usize = 10_000;
const SMALL_JOBS: usize = 100;

/// Rows of a generator, so many a second.
fn rows(per_second: u64) -> String {
    format!(
        "CREATE TABLE clicks (k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen', \
         'rows-per-second' = '{per_second}', 'fields.k.min' = '0', 'fields.k.max' = '99', 'fields.ts.step' = '10ms');\n"
    )
}

/// What is measured of a server, in the order in which it is: a fresh one first.
pub fn sections(repeats: usize) -> Result<Vec<Section>, String> {
    let kafka = Kafka::start();
    let mut idle = Section::new(
        "The service at rest",
        "A server with SQLite, started anew each time; resident sets after five seconds without requests. MB are 10^6 bytes.",
        &["figure", "median", "spread", "wanted", ""],
    );
    let mut figures: [Vec<f64>; 4] = Default::default();
    for _ in 0..repeats {
        eprintln!("the service at rest");
        for (all, figure) in figures.iter_mut().zip(at_rest(&kafka)?) {
            all.push(figure);
        }
    }
    let wanted = [
        ("start of the program to ready, ms", Thresholds::READY_MS),
        ("idle server, MB", Thresholds::SERVER_MB),
        ("process of an idle job (Kafka to a view), MB", Thresholds::IDLE_JOB_MB),
        ("submitting a job to its first row in a view, ms", Thresholds::FIRST_ROW_MS),
    ];
    for ((name, wanted), values) in wanted.into_iter().zip(figures) {
        idle.figure(name, values, Some(wanted));
    }
    drop(kafka);

    let mut answers = Section::new(
        "Answers of the service",
        "One server with SQLite and the clients on the same two cores; times as the clients see them.",
        &["figure", "median", "spread", "wanted", ""],
    );
    let server = Highwater::start();
    eprintln!("one job by {CLIENTS} clients");
    let (mut rates, mut times) = (Vec::new(), Vec::new());
    let path = format!("/api/v1/jobs/{}", create(&server.address, 1)?);
    for _ in 0..repeats {
        let (rate, p99_ms) = gets(&server.address, &path, Duration::from_secs(3))?;
        rates.push(rate);
        times.push(p99_ms);
    }
    answers.figure_at_least("GET of a job, 64 keep-alive clients, requests/s", rates, Thresholds::GETS_PER_SECOND);
    answers.figure("the same, p99, ms", times, Some(Thresholds::GET_MS));
    eprintln!("{LISTED_JOBS} jobs");
    create(&server.address, LISTED_JOBS - 1)?;
    let (mut all, mut deep) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let pages = pages(&server.address)?;
        all.push(percentile(pages.clone(), 99.0));
        deep.push(percentile(pages[pages.len() * 9 / 10..].to_vec(), 99.0));
    }
    answers.figure("list of 10,000 jobs, page of 100 by cursor, p99, ms", all, Some(Thresholds::PAGE_MS));
    answers.figure("the same, the last tenth of the pages, p99, ms", deep, Some(Thresholds::PAGE_MS));
    drop(server);

    eprintln!("{SMALL_JOBS} small jobs");
    let mut many = Section::new(
        "A hundred small streaming jobs",
        "Each counts 100 rows/s in windows of one second into a view, all at once, measured over ten seconds.",
        &["figure", "median", "spread", "wanted", ""],
    );
    let (resident_mb, proportional_mb, rows_per_second, cores) = small_jobs()?;
    many.figure("resident sets of server and runs, MB", vec![resident_mb], Some(Thresholds::SMALL_JOBS_MB));
    many.figure("the same, shared pages counted once, MB", vec![proportional_mb], None);
    many.figure_at_least("rows counted per second, all jobs", vec![rows_per_second], 0.97 * 100.0 * SMALL_JOBS as f64);
    many.figure("cores in use", vec![cores], None);
    Ok(vec![idle, answers, many])
}

/// Time to ready, resident set of an idle server and of the process of an idle job, time from a submission to the first row.
fn at_rest(kafka: &Kafka) -> Result<[f64; 4], String> {
    let mut server = Highwater::start();
    server.terminate();
    let begun = Instant::now();
    server.begin();
    server.get("/readyz").expect(200);
    let ready_ms = begun.elapsed().as_secs_f64() * 1e3;
    std::thread::sleep(Duration::from_secs(5));
    let server_mb = resident_mb(server.pid())?;

    let begun = Instant::now();
    let script = rows(1_000)
        + "CREATE TABLE fresh (k BIGINT) WITH ('connector' = 'view');\nINSERT INTO fresh SELECT k FROM clicks;";
    let (job, run) = server.submit("fresh", &script);
    while server.get("/api/v1/views/fresh/rows?limit=1").send().json()["rows"].as_array().is_none_or(Vec::is_empty) {
        if begun.elapsed() > PATIENCE {
            return Err("a view stays empty".into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let first_row_ms = begun.elapsed().as_secs_f64() * 1e3;
    stop(&server, &job, &run);

    let topic = kafka.topic("idle", 1);
    let script = format!(
        "CREATE TABLE quiet (k BIGINT, n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{topic}', \
         'properties.bootstrap.servers' = '{}', 'format' = 'json');\n\
         CREATE TABLE sums (k BIGINT, total BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');\n\
         INSERT INTO sums SELECT k, SUM(n) FROM quiet GROUP BY k;",
        kafka.servers()
    );
    let (_, run) = server.submit("quiet", &script);
    server.wait_until_running(&run);
    std::thread::sleep(Duration::from_secs(5));
    let job_mb = resident_mb(server.process_of(&run))?;
    Ok([ready_ms, server_mb, job_mb, first_row_ms])
}

fn stop(server: &Highwater, job: &Value, run: &Value) {
    let job = job["id"].as_str().unwrap_or_default();
    server
        .post(&format!("/api/v1/runs/{}/stop", run["id"].as_str().unwrap_or(job)), &json!({"mode": "now"}))
        .expect(202);
    server.wait_for_end(run);
}

/// Creates jobs that are not started, by four clients. The id of one.
fn create(address: &str, count: usize) -> Result<String, String> {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let clients = 4.min(count);
    let each = |client: usize| {
        let mut connection = Connection::open(address)?;
        let mut id = String::new();
        for _ in 0..(count / clients + usize::from(client < count % clients)) {
            let name = format!("job-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            let sql = rows(1)
                + "CREATE TABLE gone (k BIGINT) WITH ('connector' = 'blackhole');\nINSERT INTO gone SELECT k FROM clicks;";
            let body = json!({"name": name, "sql": sql, "start": false}).to_string();
            let (status, answer) = connection.exchange("POST", "/api/v1/jobs", &body)?;
            let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
            if status != 201 {
                return Err(format!("a job is refused: {answer}"));
            }
            id = answer["job"]["id"].as_str().unwrap_or_default().to_owned();
        }
        Ok(id)
    };
    let made: Result<Vec<String>, String> = std::thread::scope(|scope| {
        let each = &each;
        let clients: Vec<_> = (0..clients).map(|client| scope.spawn(move || each(client))).collect();
        clients.into_iter().map(|client| client.join().map_err(|_| "a client panicked".to_owned())?).collect()
    });
    made?.pop().ok_or_else(|| "no job was made".into())
}

/// Requests per second and the 99th percentile of their times, in milliseconds.
fn gets(address: &str, path: &str, long: Duration) -> Result<(f64, f64), String> {
    let begun = Instant::now();
    let times: Result<Vec<Vec<f64>>, String> = std::thread::scope(|scope| {
        let each = || {
            let mut connection = Connection::open(address)?;
            let mut times = Vec::new();
            while begun.elapsed() < long {
                let asked = Instant::now();
                let (status, _) = connection.exchange("GET", path, "")?;
                if status != 200 {
                    return Err(format!("GET {path}: {status}"));
                }
                times.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            Ok(times)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(each)).collect();
        clients.into_iter().map(|client| client.join().map_err(|_| "a client panicked".to_owned())?).collect()
    });
    let wall_s = begun.elapsed().as_secs_f64();
    let times = times?.concat();
    Ok((times.len() as f64 / wall_s, percentile(times, 99.0)))
}

/// The time of each page of the list, in milliseconds.
fn pages(address: &str) -> Result<Vec<f64>, String> {
    let mut connection = Connection::open(address)?;
    let (mut times, mut jobs, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let asked = Instant::now();
        let (status, answer) = connection.exchange("GET", &format!("/api/v1/jobs?page_size=100{cursor}"), "")?;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("a page is refused: {answer}"));
        }
        jobs += answer["items"].as_array().map_or(0, Vec::len);
        match answer["next_page_token"].as_str() {
            Some(next) => cursor = format!("&page_token={next}"),
            None if jobs == LISTED_JOBS => return Ok(times),
            None => return Err(format!("{jobs} jobs are listed, of {LISTED_JOBS}")),
        }
    }
}

/// Resident sets, the same with shared pages counted once (both in MB), rows counted per second, and cores in use.
fn small_jobs() -> Result<(f64, f64, f64, f64), String> {
    let server = Highwater::start();
    let mut runs = Vec::new();
    for job in 0..SMALL_JOBS {
        let script = rows(100)
            + &format!(
                "CREATE TABLE counts_{job} (window_start TIMESTAMP(3), k BIGINT, n BIGINT) WITH ('connector' = 'view');\n\
                 INSERT INTO counts_{job} SELECT window_start, k, COUNT(*) FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' SECOND)) \
                 GROUP BY window_start, window_end, k;"
            );
        runs.push(server.submit(&format!("small-{job}"), &script).1);
    }
    for run in &runs {
        server.wait_until_running(run);
    }
    std::thread::sleep(Duration::from_secs(5));
    let mut processes = vec![server.pid()];
    processes.extend(runs.iter().map(|run| server.process_of(run)));
    let counted = || -> u64 {
        let of = |run: &Value| {
            let run =
                server.get(&format!("/api/v1/runs/{}", run["id"].as_str().unwrap_or_default())).expect(200).json();
            run["progress"]["rows_in"].as_u64().unwrap_or(0)
        };
        runs.iter().map(of).sum()
    };
    let used = || processes.iter().map(|pid| cpu_s(*pid)).sum::<Result<f64, String>>();
    let (begun, rows, cpu) = (Instant::now(), counted(), used()?);
    std::thread::sleep(Duration::from_secs(10));
    let (wall_s, rows, cpu) = (begun.elapsed().as_secs_f64(), counted() - rows, used()? - cpu);
    let resident = processes.iter().map(|pid| resident_mb(*pid)).sum::<Result<f64, String>>()?;
    let proportional = processes.iter().map(|pid| proportional_mb(*pid)).sum::<Result<f64, String>>()?;
    Ok((resident, proportional, rows as f64 / wall_s, cpu / wall_s))
}

fn of_proc(pid: u32, file: &str) -> Result<String, String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// A line of `/proc/PID/status` or `smaps_rollup`, in kB there, in MB here.
fn megabytes(pid: u32, file: &str, name: &str) -> Result<f64, String> {
    let text = of_proc(pid, file)?;
    let kib =
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.map(|kib| kib * 1_024.0 / 1e6).ok_or_else(|| format!("no {name} in /proc/{pid}/{file}"))
}

fn resident_mb(pid: u32) -> Result<f64, String> {
    megabytes(pid, "status", "VmRSS:")
}

fn proportional_mb(pid: u32) -> Result<f64, String> {
    megabytes(pid, "smaps_rollup", "Pss:")
}

/// User and system time that a process has used.
fn cpu_s(pid: u32) -> Result<f64, String> {
    let stat = of_proc(pid, "stat")?;
    // The name, in parentheses, may hold anything.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = rest.split_ascii_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // SAFETY: a plain system call without memory.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(ticks as f64 / per_second as f64)
}

fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 * percent / 100.0).ceil() as usize).clamp(1, values.len());
    values[at - 1]
}

/// A keep-alive connection that asks for one thing at a time: a client that costs little beside the server.
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: &str) -> Result<Connection, String> {
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Status and body of the answer.
    fn exchange(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>), String> {
        let text = |error: std::io::Error| format!("{method} {path}: {error}");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(head.as_bytes()).map_err(text)?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line).map_err(text)?;
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some(rest) = header.strip_prefix("HTTP/1.1 ") {
                status = rest.get(..3).and_then(|status| status.parse().ok()).unwrap_or(0);
            } else if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(|_| format!("{method} {path}: {header}"))?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).map_err(text)?;
        Ok((status, body))
    }
}
