//! Requests and answers in files, for vLLM's `run-batch` and what else reads OpenAI's form.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::state::write_atomically;
use super::{Run, batch_file};
use crate::error::{Error, Result};
use crate::run::api::select::Prompt;

/// No line of a file of answers is longer.
const MAX_LINE_BYTES: u64 = 256 << 20;

impl Run<'_> {
    /// Writes a line for every instance that is not done; the lines are named by the instances.
    pub(super) fn write(mut self, pending: Vec<Prompt>) -> Result<()> {
        self.require_one_line_each()?;
        self.discard_failures(&pending)?;
        let path = batch_file(self.config);
        let mut refused = Vec::new();
        let mut written = 0;
        let mut failure = None;
        let (planner, client, cancel) = (&self.planner, &self.service.client, self.service.cancel);
        write_atomically(&path, |writer| {
            for Prompt { instance_id, text } in pending {
                let lines = cancel.check().and_then(|()| planner.plan(&text)).and_then(|plan| {
                    let lines = client.batch_lines(&plan.request, |_| instance_id.clone());
                    lines.map_err(|failure| failure.error)
                });
                match lines {
                    Ok(lines) => lines.iter().try_for_each(|line| writeln!(writer, "{line}"))?,
                    Err(error) if cancel.is_cancelled() => {
                        failure = Some(error);
                        return Err(std::io::ErrorKind::Interrupted.into());
                    }
                    Err(error) => {
                        refused.push((instance_id, error));
                        continue;
                    }
                }
                written += 1;
            }
            Ok(())
        })
        .map_err(|error| failure.unwrap_or(error))?;
        for (instance_id, error) in refused {
            self.refuse(instance_id, &error)?;
        }
        self.report.submitted = written;
        self.report.waiting = written;
        self.report.file = Some(path);
        self.finish()
    }

    /// Writes the predictions of a file's answers. What it has no answer for stays to be done.
    pub(super) fn read(mut self, pending: Vec<Prompt>) -> Result<()> {
        self.require_one_line_each()?;
        let path = batch_file(self.config);
        let mut texts: HashMap<String, String> =
            pending.into_iter().map(|prompt| (prompt.instance_id, prompt.text)).collect();
        let mut answered = Vec::new();
        for_each_line(&path, |line| {
            if let Some(result) = self.service.client.read_batch_line(line)
                && let Some(text) = texts.remove(&result.custom_id)
            {
                answered.push(Prompt { instance_id: result.custom_id, text });
            }
            Ok(())
        })?;
        self.report.waiting = texts.len();
        self.discard_failures(&answered)?;
        let mut texts: HashMap<String, String> =
            answered.into_iter().map(|prompt| (prompt.instance_id, prompt.text)).collect();
        let mut strange = 0_usize;
        for_each_line(&path, |line| {
            self.service.cancel.check()?;
            let Some(result) = self.service.client.read_batch_line(line) else {
                strange += 1;
                return Ok(());
            };
            // What is done already is not done again, as when the same file is read twice.
            let Some(text) = texts.remove(&result.custom_id) else {
                strange += usize::from(!self.file.is_finished(&result.custom_id));
                return Ok(());
            };
            self.take(result.custom_id, text, vec![Some(result.answer)], None, "")
        })?;
        if strange > 0 {
            self.warn(format!("{strange} lines of {} are no answers for this run", path.display()));
        }
        self.report.file = Some(path);
        self.finish()
    }

    /// Lines are named by instances, so that each has one.
    fn require_one_line_each(&self) -> Result<()> {
        match self.service.client.batch_lines_of(self.config.n.get()) {
            1 => Ok(()),
            lines => Err(Error::invalid_argument("files of requests have one for each instance")
                .with_expected("`n` 1, or the interface `chat`", format!("`n` {lines}"))),
        }
    }
}

fn for_each_line(path: &Path, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let error = |error| Error::io("read the answers", path, error);
    let mut reader = BufReader::new(File::open(path).map_err(error)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(error)? == 0 {
            return Ok(());
        }
        if !line.trim_ascii().is_empty() {
            visit(&line)?;
        }
    }
}
