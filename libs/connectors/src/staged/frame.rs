//! One row as it waits: a key, a value, and what stands beside them.

/// A record as it waits: lengths, then bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame<'a> {
    /// The row goes instead of coming.
    pub taken_back: bool,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// Stands for the length of what is not there.
pub const NONE: u32 = u32::MAX;
/// Whether the row is taken back, and its timestamp.
pub const HEAD_BYTES: usize = 9;

impl<'a> Frame<'a> {
    pub fn write(&self, log: &mut Vec<u8>) {
        let start = log.len();
        log.extend([0; 4]);
        log.push(self.taken_back.into());
        log.extend(self.timestamp.unwrap_or(i64::MIN).to_le_bytes());
        let put = |log: &mut Vec<u8>, bytes: Option<&[u8]>| {
            log.extend(bytes.map_or(NONE, |bytes| bytes.len() as u32).to_le_bytes());
            log.extend(bytes.unwrap_or_default());
        };
        put(log, self.key);
        put(log, self.value);
        log.extend((self.headers.len() as u32).to_le_bytes());
        for (name, value) in &self.headers {
            put(log, Some(name.as_bytes()));
            put(log, *value);
        }
        let length = (log.len() - start - 4) as u32;
        log[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// The frame at the front, and what is behind it; `None` at the end.
    pub fn read(log: &'a [u8]) -> Option<(Frame<'a>, &'a [u8])> {
        fn word(log: &mut &[u8]) -> Option<u32> {
            let (word, rest) = log.split_first_chunk::<4>()?;
            *log = rest;
            Some(u32::from_le_bytes(*word))
        }
        fn bytes<'a>(log: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
            let length = word(log)?;
            if length == NONE {
                return Some(None);
            }
            let (bytes, rest) = log.split_at_checked(length as usize)?;
            *log = rest;
            Some(Some(bytes))
        }
        let mut rest = log;
        let length = word(&mut rest)? as usize;
        let (mut frame, behind) = rest.split_at_checked(length)?;
        let (taken_back, more) = frame.split_first()?;
        let (timestamp, more) = more.split_first_chunk::<8>()?;
        frame = more;
        let timestamp = Some(i64::from_le_bytes(*timestamp)).filter(|timestamp| *timestamp != i64::MIN);
        let (key, value) = (bytes(&mut frame)?, bytes(&mut frame)?);
        let count = word(&mut frame)?;
        let mut headers = Vec::with_capacity(count.min(64) as usize);
        for _ in 0..count {
            headers.push((std::str::from_utf8(bytes(&mut frame)??).ok()?, bytes(&mut frame)?));
        }
        Some((Frame { taken_back: *taken_back != 0, key, value, timestamp, headers }, behind))
    }

    /// Bytes of the frame at the front, by its first four.
    pub fn length(head: [u8; 4]) -> usize {
        u32::from_le_bytes(head) as usize
    }
}
