//! The steps of the schema, in the order in which they are applied. A step that was published is never changed.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// (number, name, SQLite, Postgres).
macro_rules! step {
    ($number:literal, $name:literal, $file:literal) => {
        (
            $number,
            $name,
            include_str!(concat!("../../../migrations/sqlite/", $file)),
            include_str!(concat!("../../../migrations/postgres/", $file)),
        )
    };
}

const STEPS: &[(i64, &str, &str, &str)] = &[
    step!(1, "jobs", "0001_jobs.sql"),
    step!(2, "runs", "0002_runs.sql"),
    step!(3, "operations", "0003_operations.sql"),
    step!(4, "catalogue", "0004_catalogue.sql"),
    step!(5, "keys audit answers", "0005_keys_audit_answers.sql"),
    step!(6, "leadership", "0006_leadership.sql"),
    step!(7, "epochs", "0007_epochs.sql"),
    step!(8, "savepoints", "0008_savepoints.sql"),
    step!(9, "postgres connections", "0009_postgres_connections.sql"),
];

pub(crate) fn sqlite() -> Migrator {
    migrator(|(number, name, sqlite, _)| (number, name, sqlite))
}

pub(crate) fn postgres() -> Migrator {
    migrator(|(number, name, _, postgres)| (number, name, postgres))
}

fn migrator(
    choose: impl Fn((i64, &'static str, &'static str, &'static str)) -> (i64, &'static str, &'static str),
) -> Migrator {
    let steps = STEPS.iter().map(|step| {
        let (number, name, sql) = choose(*step);
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(steps.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::STEPS;

    #[test]
    fn every_file_is_a_step_and_steps_are_numbered_without_a_gap() {
        for folder in ["sqlite", "postgres"] {
            let path = format!("{}/../../migrations/{folder}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<String> = std::fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let steps: Vec<String> =
                STEPS.iter().map(|(number, name, ..)| format!("{number:04}_{}.sql", name.replace(' ', "_"))).collect();
            assert_eq!(files, steps, "{folder}");
        }
        assert!(STEPS.iter().zip(1..).all(|((number, ..), expected)| *number == expected));
    }
}
