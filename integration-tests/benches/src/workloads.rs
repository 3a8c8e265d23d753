//! The queries, in both dialects, and what is wanted of them.

use std::path::Path;

/// What is wanted; the report says where it is missed.
pub struct Thresholds;

impl Thresholds {
    pub const LIGHT: f64 = 0.9;
    pub const WINDOWS: f64 = 1.5;
    pub const JSON_EVENTS_PER_CPU_S: f64 = 4e6;
    pub const STREAMED: f64 = 0.4;
    pub const THREADS: f64 = 1.3;
    pub const PROCESSES: f64 = 1.8;
    pub const WALL: f64 = 1.7;
    /// Of ten times the input over one time: "follows the open windows" leaves room for buffers.
    pub const MEMORY: f64 = 1.5;
    pub const START_MS: f64 = 150.0;
    pub const START_MB: f64 = 80.0;
    /// Events per CPU-second from Kafka: filters and projections, and counts per window and key.
    pub const KAFKA_LIGHT: f64 = 1.5e6;
    pub const KAFKA_WINDOWS: f64 = 1.2e6;
    pub const READY_MS: f64 = 200.0;
    pub const SERVER_MB: f64 = 60.0;
    pub const IDLE_JOB_MB: f64 = 40.0;
    pub const FIRST_ROW_MS: f64 = 300.0;
    pub const GETS_PER_SECOND: f64 = 5_000.0;
    pub const GET_MS: f64 = 25.0;
    pub const PAGE_MS: f64 = 50.0;
    /// 6 GiB.
    pub const SMALL_JOBS_MB: f64 = 6_442.0;
    /// Of the throughput without checkpoints: with one every 10 s, and every second.
    pub const CHECKPOINTS_SLOW: f64 = 0.95;
    pub const CHECKPOINTS_FAST: f64 = 0.88;
    pub const PAUSE_MS: f64 = 20.0;
    pub const RECOVERY_S: f64 = 2.0;
    pub const SERVER_RESTART_S: f64 = 3.0;
    pub const WRITTEN_PER_CHANGED: f64 = 2.0;
    /// Of the rate in memory.
    pub const ON_DISK: f64 = 0.2;
    /// Of the rate at least once.
    pub const EXACTLY_ONCE: f64 = 0.7;
}

pub struct Query {
    pub name: &'static str,
    /// The columns of the result, as DDL.
    result: &'static str,
    /// Over the table `bids`.
    sql: &'static str,
    /// The same for DataFusion.
    #[cfg_attr(not(feature = "datafusion"), allow(dead_code))]
    pub datafusion: &'static str,
    /// CPU-seconds of DataFusion over ours, at least.
    #[cfg_attr(not(feature = "datafusion"), allow(dead_code))]
    pub at_least: Option<f64>,
    /// Also measured as a stream.
    pub streams: bool,
    /// Also measured with two threads and two processes.
    pub keyed: bool,
}

impl Query {
    pub fn script(&self, tables: &str, sink: &str) -> String {
        format!("{tables}\nCREATE TABLE result ({}) WITH ({sink});\nINSERT INTO result {};\n", self.result, self.sql)
    }
}

/// The table of bids in a file.
pub fn bids(folder: &Path, file: &str, format: &str) -> String {
    bids_from(&format!("'connector' = 'filesystem', 'path' = '{}', 'format' = '{format}'", folder.join(file).display()))
}

/// The table of bids, wherever they are.
pub fn bids_from(source: &str) -> String {
    format!(
        "CREATE TABLE bids (auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING,\n\
         WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND)\n\
         WITH ({source});"
    )
}

/// What is measured over a topic, and the events per CPU-second that are wanted.
pub fn kafka() -> Vec<(Query, f64)> {
    let windows = bounded().into_iter().filter(|query| query.streams && query.name.ends_with("count per auction"));
    json()
        .into_iter()
        .map(|query| (query, Thresholds::KAFKA_LIGHT))
        .chain(windows.map(|query| (query, Thresholds::KAFKA_WINDOWS)))
        .collect()
}

pub fn bounded() -> Vec<Query> {
    let query = |name, result, sql, datafusion, at_least| Query {
        name,
        result,
        sql,
        datafusion,
        at_least: Some(at_least),
        streams: false,
        keyed: false,
    };
    let windowed = |name, result, sql, datafusion, at_least| Query {
        streams: true,
        keyed: true,
        ..query(name, result, sql, datafusion, at_least)
    };
    vec![
        // What reading costs, to judge the rest by.
        Query {
            at_least: None,
            ..query(
                "scan of two columns",
                "price BIGINT, `dateTime` TIMESTAMP(3)",
                "SELECT price, `dateTime` FROM bids",
                "SELECT price, \"dateTime\" FROM bids",
                Thresholds::LIGHT,
            )
        },
        query(
            "filter (q2)",
            "auction BIGINT, price BIGINT",
            "SELECT auction, price FROM bids WHERE MOD(auction, 123) = 0",
            "SELECT auction, price FROM bids WHERE auction % 123 = 0",
            Thresholds::LIGHT,
        ),
        query(
            "currency (q1)",
            "auction BIGINT, bidder BIGINT, price DOUBLE, `dateTime` TIMESTAMP(3), extra STRING",
            "SELECT auction, bidder, CAST(0.908 AS DOUBLE) * price, `dateTime`, extra FROM bids",
            "SELECT auction, bidder, CAST(0.908 AS DOUBLE) * price AS price, \"dateTime\", extra FROM bids",
            Thresholds::LIGHT,
        ),
        windowed(
            "tumble count per auction",
            "window_start TIMESTAMP(3), auction BIGINT, n BIGINT",
            "SELECT window_start, auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) \
             GROUP BY window_start, window_end, auction",
            "SELECT date_bin(INTERVAL '10 seconds', \"dateTime\") AS window_start, auction, count(*) AS n FROM bids GROUP BY 1, 2",
            Thresholds::WINDOWS,
        ),
        windowed(
            "hop count per auction",
            "window_start TIMESTAMP(3), auction BIGINT, n BIGINT",
            "SELECT window_start, auction, COUNT(*) FROM TABLE(HOP(TABLE bids, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) \
             GROUP BY window_start, window_end, auction",
            // By panes first, as one would write it by hand: quicker than five rows for every bid.
            "SELECT pane - CAST(back * 2 || ' seconds' AS INTERVAL) AS window_start, auction, sum(n) AS n \
             FROM (SELECT date_bin(INTERVAL '2 seconds', \"dateTime\") AS pane, auction, count(*) AS n FROM bids GROUP BY 1, 2) \
             CROSS JOIN (VALUES (0), (1), (2), (3), (4)) AS panes(back) GROUP BY 1, 2",
            Thresholds::WINDOWS,
        ),
        windowed(
            "max per tumble",
            "window_start TIMESTAMP(3), largest BIGINT",
            "SELECT window_start, MAX(price) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) \
             GROUP BY window_start, window_end",
            "SELECT date_bin(INTERVAL '10 seconds', \"dateTime\") AS window_start, max(price) AS largest FROM bids GROUP BY 1",
            Thresholds::WINDOWS,
        ),
        query(
            "count distinct per day",
            "window_start TIMESTAMP(3), bidders BIGINT, auctions BIGINT",
            "SELECT window_start, COUNT(DISTINCT bidder), COUNT(DISTINCT auction) \
             FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(`dateTime`), INTERVAL '1' DAY)) GROUP BY window_start, window_end",
            "SELECT date_bin(INTERVAL '1 day', \"dateTime\") AS window_start, count(DISTINCT bidder) AS bidders, \
             count(DISTINCT auction) AS auctions FROM bids GROUP BY 1",
            Thresholds::LIGHT,
        ),
        // Of 10 million events, 600 thousand are auctions.
        Query {
            keyed: true,
            ..query(
                "running count per auction",
                "auction BIGINT, n BIGINT",
                "SELECT auction, COUNT(*) FROM bids GROUP BY auction",
                "SELECT auction, count(*) AS n FROM bids GROUP BY 1",
                Thresholds::LIGHT,
            )
        },
    ]
}

pub fn json() -> Vec<Query> {
    let query =
        |name, result, sql| Query { name, result, sql, datafusion: "", at_least: None, streams: false, keyed: false };
    vec![
        query(
            "JSON q0: all but two columns",
            "auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP(3), extra STRING",
            "SELECT auction, bidder, price, `dateTime`, extra FROM bids",
        ),
        query(
            "JSON q1: currency",
            "auction BIGINT, bidder BIGINT, price DOUBLE, `dateTime` TIMESTAMP(3)",
            "SELECT auction, bidder, CAST(0.908 AS DOUBLE) * price, `dateTime` FROM bids",
        ),
        query(
            "JSON q2: filter",
            "auction BIGINT, price BIGINT",
            "SELECT auction, price FROM bids WHERE MOD(auction, 123) = 0",
        ),
    ]
}
