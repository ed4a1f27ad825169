//! The ledger of a predictions file: what requests may cost and have cost, kept so that a killed run's are not forgotten.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::client::Money;
use crate::error::{Error, Result};

/// No line of either file is longer; what is, is none.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// `<predictions file>.costs`: JSON Lines, one before a request is sent and one when its cost is known.
///
/// A request without the second line was in flight when its run was killed: nobody knows what it was billed, so that its
/// worst case counts.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
}

/// A ledger and what it says.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) ledger: Ledger,
    /// What was spent, requests of killed runs at their worst.
    pub(super) spent: Money,
    /// What may be billed for each instance that a batch holds.
    pub(super) held: HashMap<String, Money>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    instance_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_most: Option<Money>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cost: Option<Money>,
}

impl Ledger {
    /// Opens the ledger of this predictions file, which the caller holds the lock of, and adds up what was spent: by the
    /// ledger, and by the records of instances that it does not know. What may be billed for instances that `is_held` by
    /// batches is told apart.
    ///
    /// # Errors
    /// `Io` when either file cannot be read or the ledger not be written.
    pub(super) fn open(predictions: &Path, is_held: impl Fn(&str) -> bool) -> Result<Opened> {
        let path = beside(predictions);
        let error = |error| Error::io("open the ledger of costs", &path, error);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(error)?;
        let accounts = Accounts::read(&file, &path)?;
        if accounts.is_torn {
            file.write_all(b"\n").map_err(error)?;
        }
        let mut spent = accounts.spent(predictions)?;
        let mut held = HashMap::new();
        let ledger = Self { path: path.clone(), file: Mutex::new(file) };
        for (instance_id, account) in accounts.by_id.iter().filter(|(_, account)| account.open > Money::ZERO)
        {
            if is_held(instance_id) {
                held.insert(instance_id.clone(), account.open);
                spent = spent.saturating_sub(account.open);
                continue;
            }
            // From here on it is a cost like any other, which what the instance costs next does not replace.
            ledger.settle(instance_id, account.open)?;
        }
        Ok(Opened { ledger, spent, held })
    }

    /// A request is about to be sent that costs at most this.
    ///
    /// # Errors
    /// `Io` when it cannot be written; the request must not be sent then.
    pub(super) fn reserve(&self, instance_id: &str, at_most: Money) -> Result<()> {
        self.append(&Entry { instance_id: instance_id.to_owned(), at_most: Some(at_most), cost: None })
    }

    /// All requests of the instance that were reserved since it was last settled have cost this together.
    ///
    /// # Errors
    /// `Io` when it cannot be written; the worst case counts then.
    pub(super) fn settle(&self, instance_id: &str, cost: Money) -> Result<()> {
        self.append(&Entry { instance_id: instance_id.to_owned(), at_most: None, cost: Some(cost) })
    }

    fn append(&self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry)
            .map_err(|source| Error::internal("cannot write an entry of the ledger").with_source(source))?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).map_err(|error| Error::io("append to the ledger of costs", &self.path, error))
    }
}

/// What the runs of this predictions file have spent, as [`Ledger::open`] says; the files stay as they are.
///
/// # Errors
/// `Io` when one of them is there and cannot be read.
pub(super) fn total_spent(predictions: &Path) -> Result<Money> {
    let path = beside(predictions);
    let accounts = match File::open(&path) {
        Ok(file) => Accounts::read(&file, &path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => Accounts::default(),
        Err(error) => return Err(Error::io("open the ledger of costs", &path, error)),
    };
    accounts.spent(predictions)
}

fn beside(predictions: &Path) -> PathBuf {
    let mut name = OsString::from(predictions);
    name.push(".costs");
    PathBuf::from(name)
}

/// What a ledger says.
#[derive(Default)]
struct Accounts {
    by_id: HashMap<String, Account>,
    /// Whether its last line has no end.
    is_torn: bool,
}

impl Accounts {
    fn read(file: &File, path: &Path) -> Result<Self> {
        let mut accounts = Self::default();
        for_each_entry(file, path, |entry, ends| {
            accounts.is_torn = !ends;
            let Some(Entry { instance_id, at_most, cost }) = entry else { return };
            let account = accounts.by_id.entry(instance_id).or_default();
            if let Some(cost) = cost {
                account.settled += cost;
                account.open = Money::ZERO;
            }
            account.open += at_most.unwrap_or_default();
        })?;
        Ok(accounts)
    }

    /// The sum, with the records of instances that the ledger does not know.
    fn spent(&self, predictions: &Path) -> Result<Money> {
        let mut spent: Money = self.by_id.values().map(|account| account.settled + account.open).sum();
        let records = match File::open(predictions) {
            Ok(records) => records,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(spent),
            Err(error) => return Err(Error::io("read", predictions, error)),
        };
        for_each_entry(&records, predictions, |entry, _| {
            if let Some(Entry { instance_id, cost: Some(cost), .. }) = entry
                && !self.by_id.contains_key(&instance_id)
            {
                spent += cost;
            }
        })?;
        Ok(spent)
    }
}

#[derive(Default)]
struct Account {
    settled: Money,
    open: Money,
}

/// Calls `visit` with every line, `None` for one that is no entry, and whether it ends in a newline.
fn for_each_entry(file: &File, path: &Path, mut visit: impl FnMut(Option<Entry>, bool)) -> Result<()> {
    let error = |error| Error::io("read", path, error);
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(error)?;
        if line.is_empty() {
            return Ok(());
        }
        visit(serde_json::from_slice(&line).ok(), line.ends_with(b"\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cents(cents: u32) -> Money {
        Money::from_dollars(f64::from(cents) / 100.0).unwrap()
    }

    #[test]
    fn what_was_in_flight_counts_at_its_worst_and_records_without_entries_count() {
        let dir = tempfile::tempdir().unwrap();
        let predictions = dir.path().join("p.jsonl");
        let open = || Ledger::open(&predictions, |_| false).unwrap();
        std::fs::write(
            &predictions,
            "{\"instance_id\":\"old\",\"cost\":0.5}\n{\"instance_id\":\"a\",\"cost\":0.03}\n{\"instance_id\":\"free\",\"cost\":null}\n",
        )
        .unwrap();
        assert_eq!(total_spent(&predictions).unwrap(), cents(53));
        assert_eq!(total_spent(&dir.path().join("none")).unwrap(), Money::ZERO);
        let Opened { ledger, spent: total, .. } = open();
        assert_eq!(total, cents(53));
        ledger.reserve("a", cents(5)).unwrap();
        ledger.settle("a", cents(3)).unwrap();
        ledger.reserve("b", cents(7)).unwrap();
        ledger.reserve("b", cents(7)).unwrap();
        ledger.reserve("a", cents(5)).unwrap();
        drop(ledger);
        assert_eq!(total_spent(&predictions).unwrap(), cents(50 + 3 + 5 + 14));
        let Opened { ledger, spent: total, .. } = open();
        assert_eq!(total, cents(50 + 3 + 5 + 14));
        ledger.settle("b", cents(1)).unwrap();
        let mut file = OpenOptions::new().append(true).open(&ledger.path).unwrap();
        file.write_all(b"{\"instance_id\":\"c\",\"at").unwrap();
        let Opened { ledger, spent: total, .. } = open();
        assert_eq!(total, cents(50 + 3 + 5 + 14 + 1));
        ledger.reserve("c", cents(2)).unwrap();
        assert_eq!(open().spent, cents(75));
    }

    #[test]
    fn what_a_batch_holds_stays_open_until_it_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let predictions = dir.path().join("p.jsonl");
        std::fs::write(&predictions, "").unwrap();
        let open = || Ledger::open(&predictions, |instance_id| instance_id == "held").unwrap();
        let Opened { ledger, .. } = open();
        ledger.reserve("held", cents(5)).unwrap();
        ledger.reserve("other", cents(7)).unwrap();
        for _ in 0..2 {
            let Opened { spent, held, .. } = open();
            assert_eq!((spent, held), (cents(7), HashMap::from([("held".to_owned(), cents(5))])));
        }
        ledger.settle("held", cents(1)).unwrap();
        let Opened { spent, held, .. } = open();
        assert_eq!((spent, held.len()), (cents(8), 0));
    }
}
