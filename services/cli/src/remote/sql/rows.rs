//! Rows of an answer, from an Arrow stream to stdout, as they come.

use std::io::IsTerminal;

use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use client::Body;

use crate::arguments::Output;
use crate::output;
use crate::printing::{PrintError, RowStream};
use crate::remote::failure::Failure;

/// Shows rows, at most `limit` of them, and says how many were shown and how many came.
pub async fn show(mut body: Body, output: Output, limit: u64) -> Result<(u64, u64), Failure> {
    let mut decoder = StreamDecoder::new();
    let mut stream: Option<RowStream> = None;
    let mut came = 0;
    while let Some(chunk) = body.next().await? {
        let mut bytes = Buffer::from(chunk);
        loop {
            let batch = decoder.decode(&mut bytes).map_err(unreadable)?;
            if stream.is_none()
                && let Some(schema) = decoder.schema()
            {
                stream = Some(RowStream::new(schema, output).map_err(unprintable)?);
            }
            let (Some(batch), Some(stream)) = (batch, &mut stream) else { break };
            came += batch.num_rows() as u64;
            let left = usize::try_from(limit - stream.rows()).unwrap_or(usize::MAX);
            let batch = batch.slice(0, batch.num_rows().min(left));
            output::write(&stream.take(&batch).map_err(unprintable)?)?;
        }
    }
    decoder.finish().map_err(unreadable)?;
    let mut stream = stream.ok_or_else(|| Failure::Rows("the server's answer has no columns".into()))?;
    output::write(&stream.finish(std::io::stdout().is_terminal()))?;
    Ok((stream.rows(), came))
}

fn unreadable(error: ArrowError) -> Failure {
    Failure::Rows(format!("the server's rows cannot be read: {error}"))
}

fn unprintable(error: PrintError) -> Failure {
    match error {
        PrintError::Output(error) => Failure::Output(error),
        other => Failure::Rows(other.to_string()),
    }
}
