//! Which of a dataset's instances a run takes: filter, order, shard, what is done.

use regex::Regex;

use crate::error::{Error, Result};
use crate::run::shard::Shard;

/// An instance of the dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Its place in the dataset, from 0.
    pub(super) number: usize,
    pub(super) instance_id: String,
    /// Length of its prompt in characters, which is what the reference orders by.
    pub(super) num_chars: usize,
}

/// Which instances a run takes.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) instance_id: Option<Regex>,
    pub(super) shard: Option<Shard>,
}

/// The instances of a run.
#[derive(Debug)]
pub(super) struct Selection {
    /// What is left to do, shortest first.
    pub(super) pending: Vec<Row>,
    /// Instances of the shard, finished ones included.
    pub(super) total: usize,
    /// Instances of the shard that are not to be done.
    pub(super) already_done: usize,
    /// Instances of the whole dataset that the filter leaves out.
    pub(super) skipped: usize,
}

/// Filters by id, orders by length and id, cuts the shard out, and only then drops what is done: shards stay the same
/// however often a run is resumed.
pub(super) fn select(mut rows: Vec<Row>, filter: &Filter, is_wanted: impl Fn(&str) -> bool) -> Selection {
    let all = rows.len();
    if let Some(regex) = &filter.instance_id {
        rows.retain(|row| regex.is_match(&row.instance_id));
    }
    let skipped = all - rows.len();
    rows.sort_by(|a, b| a.num_chars.cmp(&b.num_chars).then_with(|| a.instance_id.cmp(&b.instance_id)));
    if let Some(shard) = filter.shard {
        let range = shard.range(rows.len());
        rows.truncate(range.end);
        rows.drain(..range.start);
    }
    let total = rows.len();
    rows.retain(|row| is_wanted(&row.instance_id));
    Selection { already_done: total - rows.len(), pending: rows, total, skipped }
}

/// System and user message: what is before and after the first line end. A prompt of one line has no system message, and
/// one that begins with an empty line neither.
///
/// # Errors
/// `InvalidData` for a prompt without any text.
pub(super) fn split_messages(text: &str) -> Result<(&str, &str)> {
    if text.trim().is_empty() {
        return Err(Error::invalid_data("the instance has no `text`"));
    }
    match text.split_once('\n') {
        Some((system, user)) if !system.is_empty() && !user.trim().is_empty() => Ok((system, user)),
        _ => Ok(("", text)),
    }
}

/// The prompt that [`split_messages`] took apart.
pub(super) fn join_messages(system: &str, user: &str) -> String {
    if system.is_empty() { user.to_owned() } else { [system, user].join("\n") }
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
            let rows = [("c", 9), ("x", 1), ("b", 3), ("a", 3), ("d", 5)];
            let rows = rows.map(|(id, num_chars)| Row { number: 0, instance_id: id.into(), num_chars });
            let filter = Filter {
                instance_id: filter.map(|filter| Regex::new(filter).unwrap()),
                shard: shard.map(|(index, count)| Shard::new(index, count).unwrap()),
            };
            let selection = select(rows.to_vec(), &filter, |id| !done.contains(&id));
            let ids: Vec<_> = selection.pending.iter().map(|row| row.instance_id.as_str()).collect();
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
            if let Some((system, user)) = expected {
                assert_eq!(join_messages(system, user), text);
            }
        }
        check("You will\nDo it\n\n", Some(("You will", "Do it\n\n")));
        check("one line", Some(("", "one line")));
        check("one line\n\n", Some(("", "one line\n\n")));
        check("\nsecond line", Some(("", "\nsecond line")));
        check(" \n\n", None);
    }
}
