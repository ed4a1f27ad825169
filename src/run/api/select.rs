//! From a dataset's rows to the prompts of this run: filter, order, shard, what is done.

use regex::Regex;

use crate::dataset::Instance;
use crate::error::{Error, Result};
use crate::run::shard::Shard;

/// An instance and what the model is asked; without a text when the dataset has none for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) instance_id: String,
    pub(super) text: String,
}

/// Which prompts a run takes.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) instance_id: Option<Regex>,
    pub(super) shard: Option<Shard>,
}

/// The prompts of a run.
#[derive(Debug)]
pub(super) struct Selection {
    /// What is left to do, shortest first.
    pub(super) pending: Vec<Prompt>,
    /// Instances of the shard, finished ones included.
    pub(super) total: usize,
    /// Instances of the shard that are not to be done.
    pub(super) already_done: usize,
    /// Instances of the whole dataset that the filter leaves out.
    pub(super) skipped: usize,
}

/// Filters by id, orders by length and id, cuts the shard out, and only then drops what is done: shards stay the same
/// however often a run is resumed.
pub(super) fn select(
    instances: Vec<Instance>,
    filter: &Filter,
    is_wanted: impl Fn(&str) -> bool,
) -> Selection {
    let all = instances.len();
    let mut prompts: Vec<Prompt> = instances
        .into_iter()
        .filter(|instance| {
            filter.instance_id.as_ref().is_none_or(|regex| regex.is_match(&instance.instance_id))
        })
        .map(|instance| Prompt { instance_id: instance.instance_id, text: instance.text.unwrap_or_default() })
        .collect();
    let skipped = all - prompts.len();
    prompts.sort_by(|a, b| a.text.len().cmp(&b.text.len()).then_with(|| a.instance_id.cmp(&b.instance_id)));
    if let Some(shard) = filter.shard {
        let range = shard.range(prompts.len());
        prompts.truncate(range.end);
        prompts.drain(..range.start);
    }
    let total = prompts.len();
    prompts.retain(|prompt| is_wanted(&prompt.instance_id));
    Selection { already_done: total - prompts.len(), pending: prompts, total, skipped }
}

/// System and user message: what is before and after the first line end. A prompt of one line has no system message.
///
/// # Errors
/// `InvalidData` for a prompt without any text.
pub(super) fn split_messages(text: &str) -> Result<(&str, &str)> {
    if text.trim().is_empty() {
        return Err(Error::invalid_data("the instance has no `text`"));
    }
    match text.split_once('\n') {
        Some((system, user)) if !user.trim().is_empty() => Ok((system, user)),
        _ => Ok(("", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_filtered_ordered_sharded_and_then_resumed() {
        #[track_caller]
        fn check(
            filter: Option<&str>,
            shard: Option<(usize, usize)>,
            done: &[&str],
            expected: (&[&str], usize),
        ) {
            let instances = [("c", 9), ("x", 1), ("b", 3), ("a", 3), ("d", 5)];
            let instances = instances.map(|(id, len)| Instance {
                instance_id: id.into(),
                text: Some("t".repeat(len)),
                ..Instance::default()
            });
            let filter = Filter {
                instance_id: filter.map(|filter| Regex::new(filter).unwrap()),
                shard: shard.map(|(index, count)| Shard::new(index, count).unwrap()),
            };
            let selection = select(instances.to_vec(), &filter, |id| !done.contains(&id));
            let ids: Vec<_> = selection.pending.iter().map(|prompt| prompt.instance_id.as_str()).collect();
            assert_eq!((&ids[..], selection.already_done), expected);
        }
        check(None, None, &[], (&["x", "a", "b", "d", "c"], 0));
        check(Some("[a-d]"), Some((0, 2)), &[], (&["a", "b"], 0));
        check(Some("[a-d]"), Some((1, 2)), &["a", "d"], (&["c"], 1));
        check(Some("^z"), None, &[], (&[], 0));
    }

    #[test]
    fn the_first_line_is_the_system_message() {
        #[track_caller]
        fn check(text: &str, expected: Option<(&str, &str)>) {
            assert_eq!(split_messages(text).ok(), expected);
        }
        check("You will\nDo it\n\n", Some(("You will", "Do it\n\n")));
        check("one line", Some(("", "one line")));
        check("one line\n\n", Some(("", "one line\n\n")));
        check(" \n\n", None);
    }
}
