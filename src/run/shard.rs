//! Which part of a dataset this process works on: given, or found in a cluster's environment.

use std::fmt;
use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the shard is chosen when `shard_id` is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShardMode {
    /// From the environment of a Slurm array, a Kubernetes indexed job, or a launcher that sets `RANK`.
    Auto,
}

/// Which part a configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardChoice {
    /// All of the dataset.
    Whole,
    /// This part.
    Given(Shard),
    /// The part that a cluster assigned to this process.
    Environment,
}

impl ShardChoice {
    /// The part, with a cluster's environment behind `lookup`; `None` is all of the dataset.
    ///
    /// # Errors
    /// As [`Shard::from_environment`].
    pub fn resolve(
        self,
        lookup: &dyn Fn(&str) -> Option<String>,
        num_shards: Option<usize>,
    ) -> Result<Option<Shard>> {
        match self {
            Self::Whole => Ok(None),
            Self::Given(shard) => Ok(Some(shard)),
            Self::Environment => Shard::from_environment(lookup, num_shards).map(Some),
        }
    }
}

/// One of `count` contiguous parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Part `index` of `count`, counted from 0.
    ///
    /// # Errors
    /// `InvalidArgument` unless `index < count`.
    pub fn new(index: usize, count: usize) -> Result<Self> {
        if index < count {
            Ok(Self { index, count })
        } else {
            Err(Error::invalid_argument("the shard's number is out of range")
                .with_expected(format!("shard_id below num_shards ({count})"), index))
        }
    }

    /// What the keys `shard`, `shard_id` and `num_shards` of a configuration ask for together.
    ///
    /// # Errors
    /// `InvalidArgument` for keys that contradict or need each other.
    pub fn choose(
        mode: Option<ShardMode>,
        shard_id: Option<usize>,
        num_shards: Option<usize>,
    ) -> Result<ShardChoice> {
        match (mode, shard_id, num_shards) {
            (None, None, None) => Ok(ShardChoice::Whole),
            (None, Some(index), Some(count)) => Self::new(index, count).map(ShardChoice::Given),
            (None, Some(_), None) => Err(Error::invalid_argument("`shard_id` needs `num_shards`")),
            (None, None, Some(_)) => {
                Err(Error::invalid_argument("`num_shards` needs `shard_id`, or `shard` set to `auto`"))
            }
            (Some(ShardMode::Auto), None, _) => Ok(ShardChoice::Environment),
            (Some(ShardMode::Auto), Some(_), _) => {
                Err(Error::invalid_argument("`shard_id` and `shard` set to `auto` exclude each other"))
            }
        }
    }

    /// The part that a cluster assigned to this process, looked up in its environment.
    ///
    /// `num_shards` is needed where the environment has no count (Kubernetes), and overrides it where it has one, so
    /// that `--array=3` can redo one task of an array of ten.
    ///
    /// # Errors
    /// `InvalidArgument` when no known variable is set, when one is not a number, when an array is not evenly spaced,
    /// or when the count is unknown.
    pub fn from_environment(
        lookup: &dyn Fn(&str) -> Option<String>,
        num_shards: Option<usize>,
    ) -> Result<Self> {
        let variable = |name: &str| -> Result<Option<usize>> {
            let Some(value) = lookup(name) else { return Ok(None) };
            value.trim().parse().map(Some).map_err(|_| {
                Error::invalid_argument(format!("environment variable {name} is unusable"))
                    .with_expected("a whole number", format!("`{value}`"))
            })
        };
        if let Some(task) = variable("SLURM_ARRAY_TASK_ID")? {
            return match num_shards {
                Some(count) => Self::new(task, count),
                None => SlurmArray::read(&variable)?.shard(task),
            };
        }
        for (index_name, count_name) in INDEX_AND_COUNT {
            if let Some(index) = variable(index_name)? {
                let in_environment = count_name.map(&variable).transpose()?.flatten();
                let count = num_shards.or(in_environment).ok_or_else(|| {
                    Error::invalid_argument(format!(
                        "{index_name} says which shard this is, but not of how many"
                    ))
                    .with_hint("give num_shards as well")
                })?;
                return Self::new(index, count);
            }
        }
        Err(Error::invalid_argument("no shard found in the environment")
            .with_expected("SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX or RANK", "none of them")
            .with_hint("outside an array job, give shard_id and num_shards"))
    }

    /// The part's number, from 0.
    pub fn index(self) -> usize {
        self.index
    }

    /// The number of parts.
    pub fn count(self) -> usize {
        self.count
    }

    /// The rows of this part among `len`: the first `len % count` parts have one row more, as in `datasets`' contiguous
    /// `Dataset.shard`.
    pub fn range(self, len: usize) -> Range<usize> {
        let (quotient, remainder) = (len / self.count, len % self.count);
        let start = quotient * self.index + self.index.min(remainder);
        start..start + quotient + usize::from(self.index < remainder)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.index, self.count)
    }
}

/// Variables that number processes from 0, with the one that counts them: Kubernetes indexed jobs, torchrun and kin.
const INDEX_AND_COUNT: [(&str, Option<&str>); 2] =
    [("JOB_COMPLETION_INDEX", None), ("RANK", Some("WORLD_SIZE"))];

/// The shape of a Slurm job array such as `--array=0-9` or `--array=1-19:2`.
struct SlurmArray {
    min: usize,
    max: usize,
    count: usize,
    step: usize,
}

impl SlurmArray {
    fn read(variable: &dyn Fn(&str) -> Result<Option<usize>>) -> Result<Self> {
        let needed = |name: &str| {
            variable(name)?.ok_or_else(|| {
                Error::invalid_argument(format!("SLURM_ARRAY_TASK_ID is set, but not {name}"))
                    .with_hint("give num_shards as well; task ids then count from 0")
            })
        };
        Ok(Self {
            min: needed("SLURM_ARRAY_TASK_MIN")?,
            max: needed("SLURM_ARRAY_TASK_MAX")?,
            count: needed("SLURM_ARRAY_TASK_COUNT")?,
            step: variable("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1),
        })
    }

    fn shard(&self, task: usize) -> Result<Shard> {
        let Self { min, max, count, step } = *self;
        let span = count.checked_sub(1).and_then(|steps| steps.checked_mul(step));
        let evenly_spaced = step > 0 && span.is_some() && span == max.checked_sub(min);
        let offset = task.checked_sub(min).filter(|offset| evenly_spaced && offset % step == 0);
        let index = offset.map(|offset| offset / step).ok_or_else(|| {
            Error::invalid_argument("the Slurm array is not evenly spaced")
                .with_expected(
                    format!("{count} task ids from {min} to {max} in steps of {step}"),
                    format!("task {task}"),
                )
                .with_hint(
                    "submit a range such as --array=0-9, or give num_shards; task ids then count from 0",
                )
        })?;
        Shard::new(index, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_those_of_the_reference() {
        // list(range(7)) through datasets.Dataset.shard(3, i, contiguous=True).
        let ranges: Vec<_> = (0..3).map(|index| Shard::new(index, 3).unwrap().range(7)).collect();
        assert_eq!(ranges, [0..3, 3..5, 5..7]);
    }

    #[test]
    fn shards_cover_every_row_once() {
        for len in [0, 1, 2, 5, 16, 2294] {
            for count in [1, 2, 3, 7, 64] {
                let mut next = 0;
                for index in 0..count {
                    let range = Shard::new(index, count).unwrap().range(len);
                    assert_eq!(range.start, next, "shard {index} of {count} over {len}");
                    next = range.end;
                }
                assert_eq!(next, len);
            }
        }
    }

    #[test]
    fn a_number_beyond_the_count_is_refused() {
        let error = Shard::new(4, 4).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the shard's number is out of range: expected shard_id below num_shards (4), got 4"
        );
        assert!(Shard::new(0, 0).is_err());
    }

    #[test]
    fn finds_the_shard_in_the_environment() {
        #[track_caller]
        fn check(
            environment: &[(&str, &str)],
            num_shards: Option<usize>,
            expected: Result<(usize, usize), &str>,
        ) {
            let lookup = |name: &str| {
                environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            let found = Shard::from_environment(&lookup, num_shards);
            match (found, expected) {
                (Ok(shard), Ok(expected)) => assert_eq!((shard.index(), shard.count()), expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{environment:?}: {found:?}"),
            }
        }
        fn slurm<'a>(id: &'a str, min: &'a str, max: &'a str, count: &'a str) -> [(&'a str, &'a str); 4] {
            [
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_MIN", min),
                ("SLURM_ARRAY_TASK_MAX", max),
                ("SLURM_ARRAY_TASK_COUNT", count),
            ]
        }
        check(&slurm("3", "0", "9", "10"), None, Ok((3, 10)));
        check(&slurm("4", "1", "4", "4"), None, Ok((3, 4)));
        check(&slurm("3", "3", "3", "1"), Some(10), Ok((3, 10)));
        check(&slurm("7", "1", "7", "3"), None, Err("not evenly spaced"));
        check(&slurm("x", "0", "9", "10"), None, Err("SLURM_ARRAY_TASK_ID is unusable"));
        check(&slurm("0", "0", "0", "0"), None, Err("not evenly spaced"));
        let mut stepped = slurm("5", "1", "7", "4").to_vec();
        stepped.push(("SLURM_ARRAY_TASK_STEP", "2"));
        check(&stepped, None, Ok((2, 4)));
        stepped[0].1 = "4";
        check(&stepped, None, Err("not evenly spaced"));
        check(&[("SLURM_ARRAY_TASK_ID", "1")], None, Err("SLURM_ARRAY_TASK_MIN"));
        check(&[("JOB_COMPLETION_INDEX", "2")], Some(4), Ok((2, 4)));
        check(&[("JOB_COMPLETION_INDEX", "2")], None, Err("of how many"));
        check(&[("JOB_COMPLETION_INDEX", "4")], Some(4), Err("out of range"));
        check(&[("RANK", "1"), ("WORLD_SIZE", "2")], None, Ok((1, 2)));
        check(&[], Some(4), Err("no shard found"));
    }
}
