//! Whether each instance's patch applies to its repository, as far as datasets and clones tell.

use std::collections::{HashMap, HashSet};

use super::config::PredictionsConfig;
use super::read::Record;
use crate::cancel::CancelToken;
use crate::dataset::{Dataset, DatasetSpec};
use crate::error::{Error, Result};
use crate::patch::{AtCommit, Verdict};
use crate::repo::{MirrorConfig, Mirrors};
use crate::run::split::open_split;

/// What is known of the instances beside their predictions.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Whether patches apply, by instance; those that are not here were not checked.
    pub(super) applies: HashMap<String, Verdict>,
    /// Why a patch could not be checked.
    pub(super) unchecked: HashMap<String, String>,
    /// Characters of the prompts.
    pub(super) prompt_chars: HashMap<String, usize>,
    /// Instances of the dataset, when there is one.
    pub(super) known: Option<HashSet<String>>,
}

/// Checks what the configuration names enough for: ids with a dataset, patches with clones, too.
///
/// # Errors
/// Those of the dataset, `NotFound` when there is no directory of clones, `Cancelled`. A repository that is not there only leaves
/// its instances unchecked.
pub(super) fn check(
    records: &[Record],
    config: &PredictionsConfig,
    cancel: &CancelToken,
) -> Result<Verdicts> {
    let Some(name) = &config.dataset else { return Ok(Verdicts::default()) };
    let dataset = load(name, config, cancel)?;
    let mut verdicts = Verdicts::default();
    let mut places = HashMap::new();
    for instance in &dataset.instances {
        let field = |name: &str| instance.fields.get(name).and_then(|value| value.as_str());
        if let (Some(repo), Some(commit)) = (field("repo"), field("base_commit")) {
            places.insert(instance.instance_id.as_str(), (repo, commit));
        }
        if let Some(text) = &instance.text {
            verdicts.prompt_chars.insert(instance.instance_id.clone(), text.chars().count());
        }
    }
    verdicts.known = Some(dataset.instances.iter().map(|instance| instance.instance_id.clone()).collect());
    if config.mirror_dir.is_none() {
        return Ok(verdicts);
    }
    let mirrors =
        Mirrors::new(MirrorConfig { mirror_dir: config.mirror_dir.clone(), ..MirrorConfig::default() })?;
    for record in records.iter().filter(|record| !record.patch().trim().is_empty()) {
        cancel.check()?;
        let verdict = match places.get(record.instance_id.as_str()) {
            Some((repo, commit)) => verdict(record, repo, commit, &mirrors, config, cancel),
            None => Err(Error::not_found("the dataset does not say where it has to apply")),
        };
        match verdict {
            Ok(verdict) => drop(verdicts.applies.insert(record.instance_id.clone(), verdict)),
            Err(error) => {
                cancel.check()?;
                verdicts.unchecked.insert(record.instance_id.clone(), error.to_line());
            }
        }
    }
    Ok(verdicts)
}

fn verdict(
    record: &Record,
    repo: &str,
    commit: &str,
    mirrors: &Mirrors,
    config: &PredictionsConfig,
    cancel: &CancelToken,
) -> Result<Verdict> {
    let (repository, commit) = mirrors.open_at(&repo.parse()?, commit, cancel)?;
    AtCommit::new(repository, commit, cancel)?.check(record.patch(), config.check, cancel)
}

fn load(name: &str, config: &PredictionsConfig, cancel: &CancelToken) -> Result<Dataset> {
    let spec = DatasetSpec {
        name_or_path: name.to_owned(),
        split: config.split.clone(),
        columns: vec!["text".into(), "repo".into(), "base_commit".into()],
        cache_dir: config.cache_dir.clone(),
    };
    open_split(spec, cancel)?.load()
}
