//! Requests and answers in files, for vLLM's `run-batch` and what else reads OpenAI's form.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use super::state::AtomicFile;
use super::{Run, batch_file};
use crate::error::{Error, Result};
use crate::run::api::prompts::Prompt;
use crate::run::api::select::Row;

/// No line of a file of answers is longer.
const MAX_LINE_BYTES: u64 = 256 << 20;

impl Run<'_> {
    /// Writes a line for every instance that is not done; the lines are named by the instances.
    pub(super) fn write(mut self, pending: Vec<Row>) -> Result<()> {
        self.require_one_line_each()?;
        self.discard_failures(&pending)?;
        let path = batch_file(self.config);
        let mut file = AtomicFile::create(&path)?;
        for prompt in self.prompts(pending)? {
            let Prompt { instance_id, text } = prompt?;
            self.service.cancel.check()?;
            let lines = self.plan(text).and_then(|(request, _)| {
                let lines = self.service.client.batch_lines(&request, |_| instance_id.clone());
                lines.map_err(|failure| failure.error)
            });
            match lines {
                Ok(lines) => {
                    lines.iter().try_for_each(|line| file.write(|writer| writeln!(writer, "{line}")))?;
                    self.report.submitted += 1;
                }
                Err(error) => {
                    self.service.cancel.check()?;
                    self.refuse(instance_id, &error)?;
                }
            }
        }
        file.finish()?;
        self.report.waiting = self.report.submitted;
        self.report.file = Some(path);
        self.finish()
    }

    /// Writes the predictions of a file's answers. What it has no answer for stays to be done.
    pub(super) fn read(mut self, pending: Vec<Row>) -> Result<()> {
        self.require_one_line_each()?;
        let path = batch_file(self.config);
        let mut rows: HashMap<String, Row> =
            pending.into_iter().map(|row| (row.instance_id.clone(), row)).collect();
        // In the order of the answers, which the prompts then have, too.
        let mut answered = Vec::new();
        for_each_line(&path, |line| {
            let result = self.service.client.read_batch_line(line);
            answered.extend(result.and_then(|result| rows.remove(&result.custom_id)));
            Ok(())
        })?;
        self.report.waiting = rows.len();
        self.discard_failures(&answered)?;
        let mut wanted: HashSet<String> = answered.iter().map(|row| row.instance_id.clone()).collect();
        let mut prompts = self.prompts(answered)?;
        let mut strange = 0_usize;
        for_each_line(&path, |line| {
            self.service.cancel.check()?;
            let Some(result) = self.service.client.read_batch_line(line) else {
                strange += 1;
                return Ok(());
            };
            if !wanted.remove(&result.custom_id) {
                // What is done already is not done again, as when the same file is read twice.
                strange += usize::from(!self.file.is_finished(&result.custom_id));
                return Ok(());
            }
            match prompts.next().transpose()? {
                Some(Prompt { instance_id, text }) if instance_id == result.custom_id => {
                    self.take(instance_id, text, vec![Some(result.answer)], None, "")
                }
                _ => Err(Error::invalid_data("the file changed while it was read").with_path(&path)),
            }
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
