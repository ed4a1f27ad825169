//! The framing of an Arrow stream, checked against the file's length before anything is decoded.
//!
//! A message is `0xFFFFFFFF`, a 32-bit metadata length, the metadata (a flatbuffer), and a body whose length the metadata
//! gives. Streams written before Arrow 0.15 lack the marker. A zero length ends the stream.

use std::io::{self, Read, Seek, SeekFrom};

use arrow_ipc::{Message, RecordBatch, root_as_message};

use super::budget::ExpansionBudget;
use crate::error::{Error, ErrorKind, Result};

const CONTINUATION: [u8; 4] = [0xFF; 4];

/// Walks the messages from `start`: every one must lie within `len`, and what compressed buffers say that they expand
/// to is charged to `budget`, because the decoder allocates that much on their word.
pub(super) fn check<R: Read + Seek>(
    file: &mut R,
    start: u64,
    len: u64,
    budget: &mut ExpansionBudget,
) -> Result<()> {
    let mut position = start;
    let mut messages = 0_usize;
    loop {
        if position == len && messages > 0 {
            // The specification lets a writer just stop, but those of `datasets` and pyarrow never do.
            log::warn!("an Arrow file ends without its end marker: the last rows may be missing");
            return Ok(());
        }
        seek(file, position)?;
        let mut remaining = len.saturating_sub(position);
        let mut word = read_word(file, &mut remaining)?;
        if word == CONTINUATION {
            word = read_word(file, &mut remaining)?;
        }
        let metadata_len = u64::from(u32::from_le_bytes(word));
        if metadata_len == 0 && messages > 0 {
            return Ok(());
        }
        if metadata_len == 0 {
            return Err(Error::invalid_data("not an Arrow file: it begins with the end of a stream"));
        }
        if metadata_len > remaining {
            return Err(truncated("a message's metadata", metadata_len, remaining, messages));
        }
        remaining -= metadata_len;
        let mut metadata = Vec::new();
        file.by_ref().take(metadata_len).read_to_end(&mut metadata).map_err(unreadable)?;
        let message = root_as_message(&metadata).map_err(|error| {
            let what = if messages == 0 { "not an Arrow file" } else { "the Arrow file is corrupt" };
            Error::invalid_data(format!("{what}: message {messages} is not readable"))
                .with_source(error.to_string())
        })?;
        let body_len = u64::try_from(message.bodyLength())
            .map_err(|_| Error::invalid_data(format!("message {messages} has a negative length")))?;
        if body_len > remaining {
            return Err(truncated("a message's body", body_len, remaining, messages));
        }
        let body = len - remaining;
        if let Some(batch) = record_batch(&message) {
            charge_compressed(file, &batch, body, body_len, budget)?;
        }
        position = body + body_len;
        messages += 1;
    }
}

/// The record batch in a message, or the one that holds a dictionary's values.
fn record_batch<'a>(message: &Message<'a>) -> Option<RecordBatch<'a>> {
    message.header_as_record_batch().or_else(|| message.header_as_dictionary_batch()?.data())
}

/// Charges the sizes that the batch's compressed buffers begin with; -1 stands for stored as it is.
fn charge_compressed<R: Read + Seek>(
    file: &mut R,
    batch: &RecordBatch<'_>,
    body: u64,
    body_len: u64,
    budget: &mut ExpansionBudget,
) -> Result<()> {
    let (Some(_), Some(buffers)) = (batch.compression(), batch.buffers()) else {
        return Ok(());
    };
    for buffer in buffers {
        if buffer.length() == 0 {
            continue;
        }
        let offset = u64::try_from(buffer.offset())
            .ok()
            .filter(|offset| offset.checked_add(8).is_some_and(|end| end <= body_len))
            .ok_or_else(|| Error::invalid_data("a compressed buffer lies outside of its message"))?;
        seek(file, body + offset)?;
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(unreadable)?;
        match i64::from_le_bytes(size) {
            -1 => {}
            size => budget.charge(u64::try_from(size).map_err(|_| {
                Error::invalid_data("a compressed buffer has a negative size")
                    .with_expected("-1 or more", size)
            })?)?,
        }
    }
    Ok(())
}

fn read_word<R: Read>(file: &mut R, remaining: &mut u64) -> Result<[u8; 4]> {
    let mut word = [0; 4];
    if *remaining < 4 {
        return Err(Error::invalid_data("not an Arrow file, or a truncated one")
            .with_expected("4 bytes of a message's length", format_args!("{remaining}")));
    }
    file.read_exact(&mut word).map_err(unreadable)?;
    *remaining -= 4;
    Ok(word)
}

fn seek<S: Seek>(file: &mut S, position: u64) -> Result<()> {
    file.seek(SeekFrom::Start(position)).map_err(unreadable)?;
    Ok(())
}

fn truncated(what: &str, needed: u64, remaining: u64, message: usize) -> Error {
    let file =
        if message == 0 { "not an Arrow file, or a truncated one" } else { "the Arrow file is truncated" };
    Error::invalid_data(file)
        .with_expected(format_args!("{needed} bytes of {what}"), format_args!("{remaining}"))
}

fn unreadable(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot read the dataset").with_source(error)
}
