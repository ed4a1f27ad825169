//! Server-sent events (WHATWG HTML, 9.2) out of pieces of bytes that are cut anywhere, with a bound on what is kept.

/// Longest event that is read, in bytes: the Responses API's last event repeats the whole answer.
const MAX_EVENT: usize = 16 << 20;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name, empty when it has none.
    pub name: String,
    /// Its data lines, joined by line ends.
    pub data: String,
}

/// An event that is longer than any answer, or text that is not UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadEvent(pub &'static str);

/// Collects bytes until they make events.
#[derive(Default)]
pub(super) struct EventReader {
    /// The beginning of a line that has not ended yet, as characters may be cut between two pieces.
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    /// Whether the last byte was a carriage return, whose line feed is yet to be dropped.
    after_return: bool,
    begun: bool,
}

impl EventReader {
    /// Reads the next piece, and hands each event that it ends to `take`.
    pub(super) fn push<E: From<BadEvent>>(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(Event) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            if self.after_return
                && let Some(first) = bytes.first()
            {
                self.after_return = false;
                if *first == b'\n' {
                    bytes = &bytes[1..];
                }
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.line.extend_from_slice(bytes);
                return self.check_size().map_err(E::from);
            };
            self.line.extend_from_slice(&bytes[..end]);
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if let Some(event) = self.end_line()? {
                take(event)?;
            }
        }
    }

    fn end_line(&mut self) -> Result<Option<Event>, BadEvent> {
        self.check_size()?;
        let line = std::mem::take(&mut self.line);
        let line = str::from_utf8(&line).map_err(|_| BadEvent("the stream is not UTF-8"))?;
        let line = if self.begun { line } else { line.strip_prefix('\u{feff}').unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return Ok(std::mem::take(&mut self.has_data).then_some(event));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // Comments keep the connection alive; ids and reconnection times are for browsers.
            _ => {}
        }
        Ok(None)
    }

    fn check_size(&self) -> Result<(), BadEvent> {
        if self.line.len() + self.event.data.len() > MAX_EVENT {
            return Err(BadEvent("an event of the stream is larger than 16 MiB"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<(String, String)>, BadEvent> {
        let mut reader = EventReader::default();
        let mut events = Vec::new();
        for piece in pieces {
            reader.push(piece, |event| {
                events.push((event.name, event.data));
                Ok::<_, BadEvent>(())
            })?;
        }
        Ok(events)
    }

    #[test]
    fn events_do_not_depend_on_where_the_stream_is_cut() {
        let text = "\u{feff}: hello\r\nevent: delta\r\ndata: {\"é\":\r\ndata:  \"日本\"}\r\n\r\nid: 3\ndata\n\nretry: 1\n\ndata: [DONE]\r\rdata: cut";
        let expected = vec![
            ("delta".into(), "{\"é\":\n \"日本\"}".into()),
            (String::new(), String::new()),
            (String::new(), "[DONE]".into()),
        ];
        for size in 1..=text.len() {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(read(&pieces).unwrap(), expected, "pieces of {size}");
        }
    }

    #[test]
    fn endless_lines_events_and_foreign_bytes_are_refused() {
        let piece = vec![b'x'; 1 << 20];
        assert!(read(&vec![&piece[..]; 17]).is_err());
        let line = [b"data: ", &piece[..], b"\n"].concat();
        assert!(read(&vec![&line[..]; 17]).is_err());
        assert_eq!(read(&[b"data: \xff\n\n"]), Err(BadEvent("the stream is not UTF-8")));
    }
}
