//! Progress of a run: a bar on a terminal, a line for each instance elsewhere.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use indicatif::ProgressStyle;
use serde_json::Value;

use crate::exit::Failure;
use crate::follow::follow;
use crate::swebench::{Job, Level, sys};
use crate::talk::Talk;

/// Before the first instance there is nothing to tell the time left from.
const BAR: &str = "{bar:16} {pos}/{len} · {msg}";
const BAR_WITH_TIME: &str = "{bar:16} {pos}/{len} · {msg} · {eta} left";

/// Turns a run's events into what the user sees.
pub(crate) struct Progress<'a> {
    talk: &'a Talk,
    /// What is awaited before the first tokens.
    first: &'static str,
    /// What became of instances that are not part of the run.
    left_out: &'static str,
    total: u64,
    done: u64,
    failed: u64,
    rate: Rate,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(talk: &'a Talk, first: &'static str, left_out: &'static str) -> Self {
        let progress = Self { talk, first, left_out, total: 0, done: 0, failed: 0, rate: Rate::default() };
        progress.set_style("{spinner} {msg}");
        talk.bar().set_message("opening the dataset");
        talk.bar().enable_steady_tick(Duration::from_millis(120));
        progress
    }

    /// Shows a run's events until its end; the run's summary.
    pub(crate) fn follow(mut self, job: Job) -> Result<Value, Failure> {
        let result = follow(job, |kind, event| {
            match kind {
                sys::SWEBENCH_EVENT_STARTED => self.started(event),
                sys::SWEBENCH_EVENT_PROGRESS => self.progressed(event),
                sys::SWEBENCH_EVENT_INSTANCE => self.finished(event),
                sys::SWEBENCH_EVENT_WARNING => {
                    self.talk.say(Level::Warn, event["message"].as_str().unwrap_or_default(), event);
                }
                _ => {}
            }
            Ok(())
        });
        self.talk.bar().finish_and_clear();
        result
    }

    /// The instances are known.
    fn started(&mut self, event: &Value) {
        let count = |key: &str| event[key].as_u64().unwrap_or(0);
        self.total = count("total");
        self.done = count("already_done");
        self.talk.bar().set_message(self.first);
        self.set_style(BAR);
        self.talk.bar().set_length(self.total);
        // Without this, instances of earlier runs would count as done at lightning speed.
        self.talk.bar().set_position(self.done);
        self.talk.bar().reset_eta();
        let text = format!(
            "{} instances: {} done before, {} to do, {} {}",
            self.total,
            self.done,
            self.total.saturating_sub(self.done),
            count("skipped"),
            self.left_out,
        );
        self.talk.say(Level::Info, &text, event);
    }

    /// Tokens so far.
    fn progressed(&mut self, event: &Value) {
        let count = |key: &str| event[key].as_u64().unwrap_or(0);
        let rate = self.rate.update(count("completion_tokens"), Instant::now());
        let mut parts = vec![format!("{} failed", self.failed)];
        parts.extend(event["spent"].as_f64().map(|dollars| format!("${dollars:.4}")));
        parts.push(match (rate, count("prompt_tokens"), count("running")) {
            (Some(rate), ..) => format!("{rate:.1} tokens/s"),
            (None, 0, running) => format!("{running} under way"),
            (None, prompts, _) => format!("{prompts} prompt tokens"),
        });
        self.talk.bar().set_message(parts.join(" · "));
    }

    /// An instance is in the file.
    fn finished(&mut self, event: &Value) {
        self.done += 1;
        self.set_style(BAR_WITH_TIME);
        self.talk.bar().set_position(self.done);
        let id = event["instance_id"].as_str().unwrap_or_default();
        let place = format!("[{}/{}] {id}", self.done, self.total);
        match event["error"].as_str() {
            Some(error) => {
                self.failed += 1;
                self.talk.say(Level::Warn, &format!("{place}: failed: {error}"), event);
            }
            None if self.talk.shows_bar() => {}
            None => {
                // Only models write tokens.
                let written = event["completion_tokens"].as_u64().map_or_else(String::new, |tokens| {
                    format!(": {tokens} tokens, {}", event["finish_reason"].as_str().unwrap_or("stop"))
                });
                self.talk.news(&format!("{place}{written}"), event);
            }
        }
    }

    fn set_style(&self, template: &str) {
        bar_style(self.talk, template);
    }
}

/// Gives the bar this look.
pub(crate) fn bar_style(talk: &Talk, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        talk.bar().set_style(style);
    }
}

/// Tokens a second, averaged over the last seconds: answers of services come whole, and seldom.
#[derive(Debug, Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    const WINDOW: Duration = Duration::from_secs(10);
    /// No rate is told from less.
    const LEAST: Duration = Duration::from_secs(2);

    /// The rate, unless there were no tokens yet.
    fn update(&mut self, tokens: u64, now: Instant) -> Option<f64> {
        self.0.push_back((now, tokens));
        while self.0.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= Self::WINDOW) {
            self.0.pop_front();
        }
        let (then, before) = *self.0.front()?;
        let elapsed = now.duration_since(then);
        let rate = tokens.saturating_sub(before) as f64 / elapsed.as_secs_f64();
        (elapsed >= Self::LEAST && tokens > 0).then_some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        assert_eq!(rate.update(0, at(0)), None);
        assert_eq!(rate.update(10, at(1)), None);
        assert_eq!(rate.update(40, at(2)), Some(20.0));
        assert_eq!(rate.update(40, at(10)), Some(4.0));
        assert_eq!(rate.update(60, at(12)), Some(2.0));
        assert_eq!(rate.update(60, at(30)), Some(0.0));
    }
}
