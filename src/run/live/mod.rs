//! Issues as they are on GitHub now: fetched, their repositories cloned and searched, a model asked, its patch tried.

mod config;
mod event;
mod issue;
mod record;

pub use config::RunLiveConfig;
pub use event::{IssueReport, Retrieved, RunEvent, RunSummary};

use std::path::Path;
use std::time::Instant;

use super::api::{Asked, Asker, Service};
use super::bm25_retrieval::explain;
use super::llama::Writer;
use super::predictions::{Prediction, PredictionsFile};
use crate::cancel::CancelToken;
use crate::client::{Github, Issue, IssueAddress, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::patch::{AtCommit, Judge, Report, Steps, Verdict, process};
use crate::repo::apply_to_checkout;
use issue::{Prepared, Workshop, open_local};
use record::{LiveRecord, find};

/// Where the token for GitHub is.
const TOKEN_VARIABLE: &str = "GITHUB_TOKEN";

/// Asks a model for a patch of every issue and writes the records, continuing an earlier run with the same configuration.
///
/// `on_event` is called on this thread. Cancelling ends the run with [`RunSummary::interrupted`] set. An issue that fails has a
/// record with its `error` and is tried again by the next run. With `apply` the patch goes into the checkout as well, also that of a
/// record from an earlier run.
///
/// # Errors
/// `InvalidArgument` for the configuration, `NotFound` for what it names, `Busy` when another run writes the same file,
/// `Io` when it cannot be written; and the first failure that every further request would share, such as a refused key.
/// Finished records stay in the file in every case.
pub fn run(
    config: &RunLiveConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<RunSummary> {
    let start = Instant::now();
    let mut summary = RunSummary::default();
    summary.interrupted = cancel.interrupted(run_stages(config, cancel, on_event, &mut summary))?;
    summary.seconds = start.elapsed().as_secs_f64();
    Ok(summary)
}

/// All that may be refused comes before the first issue is fetched.
fn run_stages(
    config: &RunLiveConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
    summary: &mut RunSummary,
) -> Result<()> {
    config.validate()?;
    let addresses = config.addresses()?;
    if let Some(path) = &config.local_repo {
        open_local(path, config.base_commit.first().map(String::as_str), cancel)?;
    }
    let service = if config.is_local() { None } else { Some(Service::new(&config.api())?) };
    let workshop = Workshop::new(config, connect(config, &addresses)?, cancel)?;

    let output_file = config.output_file();
    let mut file = PredictionsFile::open(&output_file)?;
    let warning = service.as_ref().and_then(Service::warning).map(str::to_owned);
    for message in [file.set_aside_warning(), warning].into_iter().flatten() {
        on_event(RunEvent::Warning { message });
    }
    let pending: Vec<(usize, &IssueAddress)> = addresses
        .iter()
        .enumerate()
        .filter(|(_, address)| !file.is_finished(&address.instance_id()))
        .collect();
    let (total, already_done) = (addresses.len(), addresses.len() - pending.len());
    *summary = RunSummary { output_file: output_file.clone(), total, already_done, ..RunSummary::default() };
    on_event(RunEvent::Started { output_file, total, already_done, skipped: 0 });
    if pending.is_empty() {
        return apply_recorded(config, &addresses, file.path(), cancel, on_event, summary);
    }
    let model = match service {
        Some(service) => Model::Service(Box::new(service.start(&config.api(), file.path())?)),
        None => Model::Local(Box::new(Writer::load(&config.llama(), cancel)?)),
    };
    file.discard_failures(|instance_id| {
        pending.iter().any(|(_, address)| address.instance_id() == instance_id)
    })?;
    let mut work = Work { config, workshop, model, file, on_event, summary };
    pending.into_iter().try_for_each(|(position, address)| {
        let base_commit = config.base_commit.get(position).map(String::as_str);
        work.finish(address, base_commit, cancel)
    })
}

/// The host's interface. All issues share it: without a URL of its own they are on github.com.
fn connect(config: &RunLiveConfig, addresses: &[IssueAddress]) -> Result<Github> {
    let api_url = match (&config.github_api_url, addresses.first()) {
        (Some(url), _) => url,
        (None, Some(address)) => Github::api_url_of(address)?,
        (None, None) => return Err(Error::internal("a run without issues")),
    };
    let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.trim().is_empty());
    Github::new(api_url, token.map(Secret::new).as_ref())
}

/// Who writes answers.
enum Model {
    Service(Box<Asker>),
    Local(Box<Writer>),
}

/// An answer of either, and what remains to be booked of a service's.
struct Answer {
    prediction: Prediction,
    asked: Option<Asked>,
}

struct Work<'a> {
    config: &'a RunLiveConfig,
    workshop: Workshop<'a>,
    model: Model,
    file: PredictionsFile,
    on_event: &'a mut dyn FnMut(RunEvent),
    summary: &'a mut RunSummary,
}

impl Work<'_> {
    /// Takes one issue to its line in the file, and its patch into the checkout where that is wanted.
    fn finish(
        &mut self,
        address: &IssueAddress,
        base_commit: Option<&str>,
        cancel: &CancelToken,
    ) -> Result<()> {
        let mut title = String::new();
        let made = self.workshop.fetch(address, cancel).and_then(|issue: Issue| {
            let prepared = self.workshop.prepare(address, base_commit, &issue, cancel);
            title = issue.title;
            prepared
        });
        // A run that is cancelled finds nothing out about its issues.
        cancel.check()?;
        let (record, asked) = match made {
            Ok(prepared) => self.solve(address, prepared, cancel)?,
            Err(error) => (failure(self.config, address, &error), None),
        };
        self.file.append(&record)?;
        if let (Some(asked), Model::Service(asker)) = (asked, &self.model) {
            asker.settle(asked)?;
            self.summary.spent = asker.spent();
        }
        let mut report = record.report(title);
        if report.error.is_none() && self.config.apply {
            apply(self.config, &mut report, cancel)?;
        }
        self.count(&report);
        (self.on_event)(RunEvent::InstanceFinished(Box::new(report)));
        Ok(())
    }

    fn solve(
        &self,
        address: &IssueAddress,
        prepared: Prepared,
        cancel: &CancelToken,
    ) -> Result<(LiveRecord, Option<Asked>)> {
        let Prepared { repository, commit, retrieved, text } = prepared;
        log::info!("{address}: asking {}", self.config.model_name);
        let Answer { mut prediction, asked } = self.ask(&address.instance_id(), text, cancel)?;
        let mut check = None;
        if let Some(answer) = prediction.full_output.as_deref().filter(|_| prediction.error.is_none()) {
            let tried = AtCommit::new(repository, commit, cancel).and_then(|tree| fit(answer, &tree, cancel));
            cancel.check()?;
            let (patch, verdict) = tried.unwrap_or_else(|error| {
                let reason = Some(error.to_line());
                (prediction.model_patch.clone(), Verdict { applies: false, by: None, reason })
            });
            prediction.model_patch = patch;
            check = Some(verdict);
        }
        let issue_url = address.to_string();
        let base_commit = Some(commit.to_string());
        Ok((LiveRecord { prediction, issue_url, base_commit, retrieved, check }, asked))
    }

    /// # Errors
    /// What ends the run.
    fn ask(&self, instance_id: &str, text: String, cancel: &CancelToken) -> Result<Answer> {
        match &self.model {
            Model::Service(asker) => {
                let asked = asker.ask(instance_id, text, cancel)?;
                Ok(Answer { prediction: asked.prediction.clone(), asked: Some(asked) })
            }
            Model::Local(writer) => match writer.write(instance_id, text, cancel) {
                Ok(prediction) => Ok(Answer { prediction, asked: None }),
                Err(error) if ends_the_run(error.kind()) => Err(error),
                Err(error) => {
                    let model = self.config.llama().name(None).recorded_model();
                    let prediction = Prediction::failed(instance_id.to_owned(), model, explain(&error));
                    Ok(Answer { prediction, asked: None })
                }
            },
        }
    }

    fn count(&mut self, report: &IssueReport) {
        let summary = &mut *self.summary;
        *(if report.error.is_some() { &mut summary.failed } else { &mut summary.finished }) += 1;
        summary.applying += usize::from(report.check.as_ref().is_some_and(|check| check.applies));
        summary.applied += usize::from(report.applied == Some(true));
        summary.prompt_tokens += report.prompt_tokens;
        summary.completion_tokens += report.completion_tokens;
    }
}

/// The patch of an answer, made to fit the files, and what git says of it.
fn fit(answer: &str, tree: &AtCommit, cancel: &CancelToken) -> Result<(String, Verdict)> {
    let Report { patch, reason, .. } =
        process(answer, &Steps { repair: true, tree: Some(tree), ..Steps::default() })?;
    let verdict = match reason {
        Some(reason) => Verdict { applies: false, by: None, reason: Some(reason.to_owned()) },
        None => tree.check(&patch, Judge::Git, cancel)?,
    };
    Ok((patch, verdict))
}

/// The record of an issue that nothing was asked for.
fn failure(config: &RunLiveConfig, address: &IssueAddress, error: &Error) -> LiveRecord {
    let reason = explain(error);
    log::info!("{address}: {reason}");
    LiveRecord {
        prediction: Prediction::failed(
            address.instance_id(),
            config.llama().name(None).recorded_model(),
            reason,
        ),
        issue_url: address.to_string(),
        base_commit: None,
        retrieved: Vec::new(),
        check: None,
    }
}

/// Puts a patch that applies to its commit into the checkout, and says so.
fn apply(config: &RunLiveConfig, report: &mut IssueReport, cancel: &CancelToken) -> Result<()> {
    let Some(checkout) = &config.local_repo else { return Ok(()) };
    let tried = match &report.check {
        Some(check) if check.applies => apply_to_checkout(checkout, &report.model_patch, cancel),
        _ => Ok(Err("the patch does not apply to the commit that it is for".into())),
    };
    cancel.check()?;
    report.apply_error = tried.unwrap_or_else(|error| Err(explain(&error))).err();
    report.applied = Some(report.apply_error.is_none());
    Ok(())
}

/// Applies the patches of records from an earlier run, after they are tried once more.
fn apply_recorded(
    config: &RunLiveConfig,
    addresses: &[IssueAddress],
    file: &Path,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
    summary: &mut RunSummary,
) -> Result<()> {
    let Some(checkout) = config.local_repo.as_deref().filter(|_| config.apply) else { return Ok(()) };
    for address in addresses {
        let recorded = find(file, &address.instance_id())?;
        let commit = recorded.base_commit.as_deref().unwrap_or("HEAD");
        let check =
            AtCommit::open(checkout, commit, cancel)?.check(&recorded.model_patch, Judge::Git, cancel)?;
        let mut report = IssueReport {
            instance_id: address.instance_id(),
            issue_url: address.to_string(),
            base_commit: Some(commit.to_owned()),
            check: Some(check),
            model_patch: recorded.model_patch,
            ..IssueReport::default()
        };
        apply(config, &mut report, cancel)?;
        summary.applied += usize::from(report.applied == Some(true));
        on_event(RunEvent::InstanceFinished(Box::new(report)));
    }
    Ok(())
}

/// Whether an error of this kind would meet every other issue too.
fn ends_the_run(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Device | ErrorKind::OutOfMemory | ErrorKind::Internal | ErrorKind::Cancelled)
}
