//! From a dataset's rows to the prompts of this run: token ids, length filter, order, shard, what is done.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::cancel::CancelToken;
use crate::dataset::{Dataset, Instance};
use crate::error::{Error, Result};
use crate::run::shard::Shard;

/// Llama's token for a newline.
const NEWLINE: u32 = 13;

/// An instance's prompt, or why it has none.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) instance_id: String,
    pub(super) token_ids: Result<Vec<u32>>,
}

impl Prompt {
    /// Tokens of the prompt; 0 when there is none.
    fn len(&self) -> usize {
        self.token_ids.as_ref().map_or(0, Vec::len)
    }
}

/// Text to token ids, from any thread.
pub(super) type Encode<'a> = &'a (dyn Fn(&str) -> Result<Vec<u32>> + Sync);

/// Keeps the instances that were asked for, in the dataset's order.
///
/// # Errors
/// `NotFound` for an id that the dataset lacks, and when it has neither prompts nor token ids.
pub(super) fn wanted_instances(dataset: Dataset, instance_ids: Option<&[String]>) -> Result<Vec<Instance>> {
    if dataset.require("input_ids").is_err() {
        dataset.require("text")?;
    }
    let mut instances = dataset.instances;
    if let Some(instance_ids) = instance_ids {
        let mut missing: HashSet<&str> = instance_ids.iter().map(String::as_str).collect();
        let wanted = missing.clone();
        instances.retain(|instance| {
            missing.remove(instance.instance_id.as_str());
            wanted.contains(instance.instance_id.as_str())
        });
        if let Some(first) = instance_ids.iter().find(|instance_id| missing.contains(instance_id.as_str())) {
            return Err(Error::not_found(format!(
                "the dataset lacks {} of the {} instances asked for, `{}` for one",
                missing.len(),
                wanted.len(),
                first.escape_debug()
            )));
        }
    }
    Ok(instances)
}

/// Token ids of every instance, `input_ids` where there are any and else the encoded `text`, on several threads.
///
/// With `ends_in_newlines`, ids are made to end in two newline tokens, which SWE-Llama was trained to expect. The reference
/// decides that for all rows by its first one.
///
/// # Errors
/// `Cancelled`. What is wrong with one instance is in its prompt.
pub(super) fn tokenize(
    instances: Vec<Instance>,
    encode: Encode<'_>,
    ends_in_newlines: bool,
    threads: usize,
    cancel: &CancelToken,
) -> Result<Vec<Prompt>> {
    let threads = threads.clamp(1, instances.len().max(1));
    // Texts are freed one by one as their ids take their place.
    let rows = Mutex::new(instances.into_iter().enumerate());
    let next_row = || rows.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut prompts = Vec::new();
        while !cancel.is_cancelled()
            && let Some((row, instance)) = next_row()
        {
            let mut token_ids = instance.input_ids.map_or_else(
                || match &instance.text {
                    Some(text) => encode(text),
                    None => Err(Error::invalid_data("the instance has neither `text` nor `input_ids`")),
                },
                Ok,
            );
            if let (true, Ok(token_ids)) = (ends_in_newlines, &mut token_ids) {
                while !token_ids.ends_with(&[NEWLINE, NEWLINE]) {
                    token_ids.push(NEWLINE);
                }
            }
            prompts.push((row, Prompt { instance_id: instance.instance_id, token_ids }));
        }
        prompts
    };
    let joined = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Result<Vec<_>, _>>()
    });
    cancel.check()?;
    let mut prompts: Vec<_> = joined
        .map_err(|_| Error::internal("a thread panicked while it tokenized the dataset"))?
        .into_iter()
        .flatten()
        .collect();
    prompts.sort_by_key(|&(row, _)| row);
    Ok(prompts.into_iter().map(|(_, prompt)| prompt).collect())
}

/// Which prompts a run takes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filter {
    pub(super) min_len: Option<usize>,
    pub(super) max_len: Option<usize>,
    pub(super) shard: Option<Shard>,
}

/// The prompts of a run.
#[derive(Debug)]
pub(super) struct Selection {
    /// What is left to do, shortest first.
    pub(super) pending: Vec<Prompt>,
    /// Prompts of the shard, finished ones included.
    pub(super) total: usize,
    /// Prompts of the shard that are finished.
    pub(super) already_done: usize,
    /// Prompts of the whole dataset that are too short or too long.
    pub(super) skipped: usize,
}

/// Filters by length, orders by length and id, cuts the shard out, and only then drops what is finished: shards stay the
/// same however often a run is resumed.
///
/// Instances without a prompt pass the filter, so that each gets its failure record.
pub(super) fn select(
    mut prompts: Vec<Prompt>,
    filter: Filter,
    is_finished: impl Fn(&str) -> bool,
) -> Selection {
    let all = prompts.len();
    let (min_len, max_len) = (filter.min_len.unwrap_or(0), filter.max_len.unwrap_or(usize::MAX));
    prompts.retain(|prompt| prompt.token_ids.is_err() || (min_len..max_len).contains(&prompt.len()));
    let skipped = all - prompts.len();
    prompts.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.instance_id.cmp(&b.instance_id)));
    if let Some(shard) = filter.shard {
        let range = shard.range(prompts.len());
        prompts.truncate(range.end);
        prompts.drain(..range.start);
    }
    let total = prompts.len();
    prompts.retain(|prompt| !is_finished(&prompt.instance_id));
    Selection { already_done: total - prompts.len(), pending: prompts, total, skipped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn prompt(instance_id: &str, len: usize) -> Prompt {
        Prompt { instance_id: instance_id.into(), token_ids: Ok(vec![1; len]) }
    }

    fn ids(prompts: &[Prompt]) -> Vec<&str> {
        prompts.iter().map(|prompt| prompt.instance_id.as_str()).collect()
    }

    fn dataset(columns: &[&str], instance_ids: &[&str]) -> Dataset {
        Dataset {
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            instances: instance_ids
                .iter()
                .map(|&instance_id| Instance { instance_id: instance_id.into(), ..Instance::default() })
                .collect(),
        }
    }

    #[test]
    fn prompts_are_filtered_ordered_sharded_and_then_resumed() {
        #[track_caller]
        fn check(shard: Option<(usize, usize)>, finished: &[&str], expected: (&[&str], usize, usize)) {
            let prompts = vec![
                prompt("e", 9),
                prompt("d", 3),
                prompt("b", 3),
                prompt("a", 5),
                prompt("c", 1),
                Prompt { instance_id: "z".into(), token_ids: Err(Error::invalid_data("no text")) },
                prompt("f", 2),
            ];
            let shard = shard.map(|(index, count)| Shard::new(index, count).unwrap());
            let filter = Filter { min_len: Some(2), max_len: Some(9), shard };
            let selection = select(prompts, filter, |id| finished.contains(&id));
            assert_eq!((&ids(&selection.pending)[..], selection.total, selection.already_done), expected);
            assert_eq!(selection.skipped, 2);
        }
        check(None, &[], (&["z", "f", "b", "d", "a"], 5, 0));
        check(Some((0, 2)), &[], (&["z", "f", "b"], 3, 0));
        check(Some((1, 2)), &[], (&["d", "a"], 2, 0));
        // What one shard has finished does not move the other's border.
        check(Some((1, 2)), &["z", "f", "b"], (&["d", "a"], 2, 0));
        check(Some((0, 2)), &["z", "b"], (&["f"], 3, 2));
        check(Some((5, 6)), &[], (&[], 0, 0));
        check(None, &["z", "f", "b", "d", "a"], (&[], 5, 5));
    }

    #[test]
    fn ids_come_from_the_dataset_or_the_tokenizer() {
        let instances = vec![
            Instance {
                instance_id: "ids".into(),
                input_ids: Some(vec![7]),
                text: Some("x".into()),
                ..Default::default()
            },
            Instance { instance_id: "text".into(), text: Some("abc".into()), ..Default::default() },
            Instance { instance_id: "none".into(), ..Default::default() },
            Instance { instance_id: "bad".into(), text: Some("!".into()), ..Default::default() },
        ];
        let encode = |text: &str| match text {
            "!" => Err(Error::invalid_data("cannot encode")),
            text => Ok(text.bytes().map(u32::from).collect()),
        };
        for threads in [1, 2, 9] {
            let prompts = tokenize(instances.clone(), &encode, false, threads, &CancelToken::new()).unwrap();
            assert_eq!(ids(&prompts), ["ids", "text", "none", "bad"]);
            assert_eq!(*prompts[0].token_ids.as_ref().unwrap(), [7]);
            assert_eq!(*prompts[1].token_ids.as_ref().unwrap(), [97, 98, 99]);
            assert!(
                prompts[2]
                    .token_ids
                    .as_ref()
                    .unwrap_err()
                    .message()
                    .contains("neither `text` nor `input_ids`")
            );
            assert_eq!(prompts[3].token_ids.as_ref().unwrap_err().message(), "cannot encode");
        }
    }

    #[test]
    fn every_swe_llama_prompt_ends_in_two_newlines() {
        #[track_caller]
        fn check(input_ids: &[u32], expected: &[u32]) {
            let instance = Instance { input_ids: Some(input_ids.to_vec()), ..Instance::default() };
            let encode = |_: &str| unreachable!();
            let prompts = tokenize(vec![instance], &encode, true, 1, &CancelToken::new()).unwrap();
            assert_eq!(prompts[0].token_ids.as_ref().unwrap(), expected);
        }
        check(&[1, 13, 13], &[1, 13, 13]);
        check(&[1, 13, 13, 13], &[1, 13, 13, 13]);
        check(&[1, 13], &[1, 13, 13]);
        check(&[1], &[1, 13, 13]);
    }

    #[test]
    fn tokenizing_can_be_cancelled() {
        let cancel = CancelToken::new();
        let encode = |_: &str| {
            cancel.cancel();
            Ok(vec![1])
        };
        let instances = vec![Instance { text: Some("x".into()), ..Instance::default() }; 3];
        assert_eq!(tokenize(instances, &encode, false, 1, &cancel).unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn a_panic_while_tokenizing_is_an_error() {
        let encode = |_: &str| panic!("of the test");
        let instances = vec![Instance { text: Some("x".into()), ..Instance::default() }];
        let error = tokenize(instances, &encode, false, 1, &CancelToken::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn instances_are_chosen_by_id() {
        let asked = ["c".to_owned(), "a".to_owned()];
        let chosen =
            wanted_instances(dataset(&["instance_id", "text"], &["a", "b", "c"]), Some(&asked)).unwrap();
        assert_eq!(chosen.iter().map(|instance| &*instance.instance_id).collect::<Vec<_>>(), ["a", "c"]);
        let error = wanted_instances(dataset(&["instance_id", "text"], &["a"]), Some(&asked)).unwrap_err();
        assert_eq!(error.to_string(), "the dataset lacks 1 of the 2 instances asked for, `c` for one");
    }

    #[test]
    fn a_dataset_without_prompts_says_how_to_build_them() {
        let error = wanted_instances(dataset(&["instance_id", "repo"], &["a"]), None).unwrap_err();
        assert!(error.hint().unwrap().contains("create-text-dataset"));
    }
}
