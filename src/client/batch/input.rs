//! The requests of one batch, gathered up to what the provider takes at once.

use super::super::protocol::Protocol;

/// Ends the parts of OpenAI's upload; JSON has no line that begins like this.
macro_rules! boundary {
    () => {
        "swebench-infer-batch-boundary"
    };
}

/// The type of OpenAI's upload (RFC 7578).
pub(super) const FORM: &str = concat!("multipart/form-data; boundary=", boundary!());

const FORM_HEAD: &str = concat!(
    "--",
    boundary!(),
    "\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--",
    boundary!(),
    "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"batch.jsonl\"\r\n",
    "Content-Type: application/jsonl\r\n\r\n"
);
const FORM_TAIL: &str = concat!("\r\n--", boundary!(), "--\r\n");
const LIST_HEAD: &str = "{\"requests\":[";
const LIST_TAIL: &str = "]}";

/// What a provider takes as one batch.
#[derive(Debug, Clone, Copy)]
struct Limits {
    requests: usize,
    bytes: usize,
}

const OPENAI: Limits = Limits { requests: 50_000, bytes: 200_000_000 };
const ANTHROPIC: Limits = Limits { requests: 100_000, bytes: 256_000_000 };

/// Requests of one batch, in the form in which they are sent.
#[derive(Debug)]
pub struct BatchInput {
    is_list: bool,
    limits: Limits,
    body: Vec<u8>,
    requests: usize,
}

impl BatchInput {
    /// Without requests yet.
    pub(super) fn new(protocol: Protocol) -> Self {
        let is_list = protocol == Protocol::Messages;
        let (limits, head) = if is_list { (ANTHROPIC, LIST_HEAD) } else { (OPENAI, FORM_HEAD) };
        Self { is_list, limits, body: head.into(), requests: 0 }
    }

    /// Adds these lines of [`Client::batch_lines`](super::super::Client::batch_lines), all or, when the batch would become
    /// larger than the provider takes, none.
    #[must_use]
    pub fn push(&mut self, lines: &[String]) -> bool {
        let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
        let tail = FORM_TAIL.len().max(LIST_TAIL.len());
        if self.requests + lines.len() > self.limits.requests
            || self.body.len() + bytes + tail > self.limits.bytes
        {
            return false;
        }
        for line in lines {
            if self.is_list && self.requests > 0 {
                self.body.push(b',');
            }
            self.body.extend_from_slice(line.as_bytes());
            if !self.is_list {
                self.body.push(b'\n');
            }
            self.requests += 1;
        }
        true
    }

    /// What is sent.
    pub(super) fn into_body(mut self) -> Vec<u8> {
        let tail = if self.is_list { LIST_TAIL } else { FORM_TAIL };
        self.body.extend_from_slice(tail.as_bytes());
        self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Vec<String> {
        vec!["{\"a\":1}".to_owned(); count]
    }

    #[test]
    fn a_batch_takes_what_the_provider_does_and_no_instance_by_halves() {
        for protocol in [Protocol::Chat, Protocol::Messages] {
            let mut input = BatchInput::new(protocol);
            input.limits.requests = 4;
            assert!(input.push(&lines(3)) && !input.push(&lines(2)) && input.push(&lines(1)));
            let mut input = BatchInput::new(protocol);
            input.limits.bytes = input.body.len() + FORM_TAIL.len() + 16;
            assert!(input.push(&lines(2)) && !input.push(&lines(1)));
            assert!(input.into_body().len() <= FORM_HEAD.len() + FORM_TAIL.len() + 16);
        }
    }

    #[test]
    fn anthropics_requests_are_one_list() {
        let mut input = BatchInput::new(Protocol::Messages);
        assert!(input.push(&lines(2)));
        assert_eq!(input.into_body(), b"{\"requests\":[{\"a\":1},{\"a\":1}]}");
    }
}
