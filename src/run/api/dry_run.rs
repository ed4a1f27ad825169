//! What a run would send and cost, found out without spending anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::batch::BatchFile;
use super::config::RunApiConfig;
use super::event::RunEvent;
use super::plan::Planner;
use super::prompts::{Prompt, for_each_pending, survey};
use super::select::{Filter, Selection, select};
use super::send::Pool;
use super::{POLL, ledger, open_dataset};
use crate::cancel::CancelToken;
use crate::client::{Client, Count, Failure, Fit, Limiter, Method, Money};
use crate::error::{Error, ErrorKind, Result};
use crate::run::predictions::Recorded;

/// What a run would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DryRun {
    /// Always true: it tells this result from a run's.
    pub dry_run: bool,
    /// Where the predictions would be.
    pub output_file: PathBuf,
    /// Instances of this run's part of the dataset.
    pub total: usize,
    /// Those that have a finished prediction.
    pub already_done: usize,
    /// Instances left out by the filter; not in `total`.
    pub skipped: usize,
    /// Instances that would be sent.
    pub sendable: usize,
    /// Of these, those that may be refused because their prompt may be too long: an estimate cannot tell.
    pub doubtful: usize,
    /// Instances that would not be sent: too long, or without a prompt.
    pub refused: usize,
    /// Tokens of the prompts that would be sent.
    pub prompt_tokens: u64,
    /// Their lengths in tokens.
    pub lengths: Option<Lengths>,
    /// How many of them were counted in which way.
    pub methods: BTreeMap<Method, usize>,
    /// The model's context, where it is known.
    pub context: Option<u64>,
    /// The most tokens of one answer, where they are known.
    pub longest_answer: Option<u64>,
    /// Dollars of the prompts alone; `None` where the price is not known.
    pub cost_least: Option<Money>,
    /// Dollars with the longest answers; `None` where they or the price are not known.
    pub cost_most: Option<Money>,
    /// The most that is reserved below `max_cost` for one instance.
    pub cost_reserved: Option<Money>,
    /// Dollars that earlier runs of the file have spent.
    pub spent: Option<Money>,
    /// Dollars a million tokens of prompt, cached prompt and answer, in the lowest tier.
    pub rates: Option<[Money; 3]>,
    /// Wall time.
    pub seconds: f64,
    /// Whether it was cancelled before its last instance.
    pub interrupted: bool,
}

/// The lengths of some prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub least: u64,
    /// Half are at most as long.
    pub median: u64,
    /// The longest.
    pub most: u64,
}

/// Counts and prices the prompts of a run.
///
/// Tokens are counted by tiktoken where OpenAI publishes the model's encoding, by Anthropic's service when there is a key,
/// and else estimated; each count says which. Nothing is written, and a run of the same file may be in progress.
///
/// # Errors
/// As [`super::run`] before its first request, and a refused key or model where the provider counts.
pub fn dry_run(
    config: &RunApiConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<DryRun> {
    let start = Instant::now();
    let mut result = DryRun { dry_run: true, ..DryRun::default() };
    result.interrupted = cancel.interrupted(count_all(config, cancel, on_event, &mut result))?;
    result.seconds = start.elapsed().as_secs_f64();
    Ok(result)
}

fn count_all(
    config: &RunApiConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
    result: &mut DryRun,
) -> Result<()> {
    config.validate()?;
    let shard = config.resolve_shard(&|name| std::env::var(name).ok())?;
    let client = Client::new(&config.client())?;
    let planner = Planner::new(config, client.provider(), client.prices())?;
    if let Some(message) = planner.warning() {
        on_event(RunEvent::Warning { message: message.to_owned() });
    }
    let split = open_dataset(config, cancel)?;
    let rows = survey(&split, cancel)?;
    let output_file = config.output_file(shard);
    let recorded = match Recorded::read(&output_file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Recorded::default(),
        recorded => recorded?,
    };
    let batches = BatchFile::open(&output_file)?;
    let filter = Filter { instance_id: config.filter()?, shard };
    let Selection { pending, total, already_done, skipped } = select(rows, &filter, |instance_id| {
        !recorded.finished.contains(instance_id)
            && !batches.holds(instance_id)
            && (!config.redo_failed || recorded.failed.contains(instance_id))
    });
    let million = |rate: Money| rate.times(1_000_000);
    *result = DryRun {
        output_file: output_file.clone(),
        total,
        already_done,
        skipped,
        context: planner.context(),
        longest_answer: planner.longest_answer(),
        spent: planner.price().map(|_| ledger::total_spent(&output_file)).transpose()?,
        rates: planner
            .rates()
            .map(|rates| [million(rates.input), million(rates.cached_input), million(rates.output)]),
        cost_least: planner.price().map(|_| Money::ZERO),
        cost_most: planner.price().and(planner.longest_answer()).map(|_| Money::ZERO),
        cost_reserved: planner.price().map(|_| Money::ZERO),
        ..result.clone()
    };
    on_event(RunEvent::Started { output_file, total, already_done, skipped });

    let counting = Arc::new(Counting { client, planner, limiter: Limiter::new(config.limiter()) });
    let mut pool = Pool::start()?;
    let mut tally = Tally { result, lengths: Vec::new(), warned: false, on_event };
    for_each_pending(&split, &pending, cancel, |_, prompt| {
        while pool.running() >= config.max_submitted() {
            cancel.check()?;
            pool.next(POLL).map_or(Ok(()), |counted| tally.add(counted))?;
        }
        pool.submit(count(Arc::clone(&counting), prompt));
        Ok(())
    })?;
    while pool.running() > 0 {
        cancel.check()?;
        pool.next(POLL).map_or(Ok(()), |counted| tally.add(counted))?;
    }
    tally.finish();
    Ok(())
}

/// What all counts use.
struct Counting {
    client: Client,
    planner: Planner,
    limiter: Limiter,
}

/// One instance's count.
struct Counted {
    event: RunEvent,
    tokens: Option<u64>,
    method: Option<Method>,
    costs: [Option<Money>; 3],
    fits: bool,
    doubtful: bool,
    /// Why the provider has not counted.
    failure: Option<Failure>,
}

async fn count(counting: Arc<Counting>, prompt: Prompt) -> Counted {
    let Prompt { instance_id, text } = prompt;
    let planner = &counting.planner;
    let request = match planner.request(text) {
        Ok(request) => request,
        Err(error) => return Counted::refused(instance_id, &error),
    };
    let (mut count, mut failure) = (planner.count(&request), None);
    if counting.client.counts_tokens() && counting.client.has_key() {
        let permit = counting.limiter.acquire(0).await;
        match counting.client.count_tokens(&request).await {
            Ok(Some(tokens)) => {
                permit.succeeded();
                count = Count::from_provider(tokens);
            }
            Ok(None) => {}
            Err(why) => failure = Some(why),
        }
    }
    let plan = planner.plan(&count);
    let (error, doubt) = match plan.fit {
        Fit::Fits => (None, None),
        Fit::Doubtful(overflow) => (None, Some(overflow.to_string())),
        Fit::Overflows(overflow) => (Some(overflow.to_string()), None),
    };
    let range = planner.cost_range(&count);
    let costs = [range.map(|(least, _)| least), range.and_then(|(_, most)| most), plan.worst_case];
    Counted {
        tokens: Some(count.tokens),
        method: Some(count.method),
        costs,
        fits: error.is_none(),
        doubtful: doubt.is_some(),
        failure,
        event: RunEvent::Planned {
            instance_id,
            prompt_tokens: Some(count.tokens),
            method: Some(count.method),
            cost_least: costs[0],
            cost_most: costs[1],
            cost_reserved: costs[2],
            error,
            doubt,
        },
    }
}

impl Counted {
    fn refused(instance_id: String, error: &Error) -> Self {
        Self {
            event: RunEvent::Planned {
                instance_id,
                prompt_tokens: None,
                method: None,
                cost_least: None,
                cost_most: None,
                cost_reserved: None,
                error: Some(error.to_line()),
                doubt: None,
            },
            tokens: None,
            method: None,
            costs: [None; 3],
            fits: false,
            doubtful: false,
            failure: None,
        }
    }
}

/// The sum of all counts so far.
struct Tally<'a> {
    result: &'a mut DryRun,
    lengths: Vec<u64>,
    warned: bool,
    on_event: &'a mut dyn FnMut(RunEvent),
}

impl Tally<'_> {
    fn add(&mut self, counted: Counted) -> Result<()> {
        if let Some(Failure { kind, error, .. }) = counted.failure {
            if kind.is_final() {
                return Err(error);
            }
            if !std::mem::replace(&mut self.warned, true) {
                let reason = error.to_line();
                let message =
                    format!("some prompts are estimated, because the provider did not count them: {reason}");
                (self.on_event)(RunEvent::Warning { message });
            }
        }
        let result = &mut *self.result;
        if counted.fits {
            result.sendable += 1;
            result.doubtful += usize::from(counted.doubtful);
            result.prompt_tokens += counted.tokens.unwrap_or_default();
            self.lengths.extend(counted.tokens);
            if let Some(method) = counted.method {
                *result.methods.entry(method).or_default() += 1;
            }
            let add = |sum: Option<Money>, cost: Option<Money>| sum.zip(cost).map(|(sum, cost)| sum + cost);
            let [least, most, reserved] = counted.costs;
            result.cost_least = add(result.cost_least, least);
            result.cost_most = add(result.cost_most, most);
            result.cost_reserved = result.cost_reserved.max(reserved);
        } else {
            result.refused += 1;
        }
        (self.on_event)(counted.event);
        Ok(())
    }

    fn finish(mut self) {
        self.lengths.sort_unstable();
        if let (Some(&least), Some(&most)) = (self.lengths.first(), self.lengths.last()) {
            let median = self.lengths[(self.lengths.len() - 1) / 2];
            self.result.lengths = Some(Lengths { least, median, most });
        }
    }
}
