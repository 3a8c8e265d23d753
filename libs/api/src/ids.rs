//! Identifiers: a UUIDv7 behind a prefix that says what it names.

use std::fmt;

/// What an identifier names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    Job,
    Run,
    Operation,
    Savepoint,
    Connection,
    Table,
    Key,
}

impl IdKind {
    pub const fn prefix(self) -> &'static str {
        match self {
            IdKind::Job => "job_",
            IdKind::Run => "run_",
            IdKind::Operation => "op_",
            IdKind::Savepoint => "svp_",
            IdKind::Connection => "conn_",
            IdKind::Table => "table_",
            IdKind::Key => "key_",
        }
    }

    /// The identifier as text: `job_0193...`, the UUID without hyphens.
    pub fn text(self, uuid: uuid::Uuid) -> String {
        format!("{}{}", self.prefix(), uuid.simple())
    }

    /// The UUID of such a text; `None` if it is none of this kind.
    pub fn parse(self, text: &str) -> Option<uuid::Uuid> {
        let simple = text.strip_prefix(self.prefix())?;
        let plain = simple.len() == 32 && simple.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        plain.then(|| uuid::Uuid::try_parse(simple).ok()).flatten()
    }
}

impl fmt::Display for IdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdKind::Job => "job",
            IdKind::Run => "run",
            IdKind::Operation => "operation",
            IdKind::Savepoint => "savepoint",
            IdKind::Connection => "connection",
            IdKind::Table => "table",
            IdKind::Key => "key",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_what_it_was_written_as_and_nothing_else() {
        let uuid = uuid::Uuid::from_u128(0x0193_4567_89ab_7def_8123_4567_89ab_cdef);
        let text = IdKind::Job.text(uuid);
        assert_eq!(text, "job_0193456789ab7def8123456789abcdef");
        assert_eq!(IdKind::Job.parse(&text), Some(uuid));
        for wrong in
            ["run_0193456789ab7def8123456789abcdef", "job_", "job_0193", "JOB_0193456789ab7def8123456789abcdef"]
        {
            assert_eq!(IdKind::Job.parse(wrong), None, "{wrong}");
        }
        assert_eq!(IdKind::Job.parse(&text.to_uppercase()), None);
    }
}
