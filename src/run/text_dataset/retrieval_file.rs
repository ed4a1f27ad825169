//! The hits that retrieval has written: one line of JSON for each instance.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

#[derive(Deserialize)]
struct Line {
    instance_id: String,
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    docid: String,
}

/// The paths that were found for each instance, best first, at most `k` of them.
///
/// # Errors
/// `NotFound` when there is no such file, `InvalidData` for a line that is not one of retrieval's.
pub(super) fn read(path: &Path, k: Option<usize>) -> Result<HashMap<String, Vec<String>>> {
    let file = File::open(path).map_err(|error| {
        Error::io("open the retrieval file", path, error)
            .with_hint("make one with swebench-cli make-datasets bm25-retrieval")
    })?;
    let mut found = HashMap::new();
    for (index, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line.map_err(|error| Error::io("read the retrieval file", path, error))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_slice(&line).map_err(|error| {
            Error::invalid_data(format!("line {} is not what retrieval writes", index + 1))
                .with_path(path)
                .with_source(error)
        })?;
        let hits = line.hits.into_iter().take(k.unwrap_or(usize::MAX)).map(|hit| hit.docid);
        found.insert(line.instance_id, hits.collect());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_cut_at_k() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.jsonl");
        std::fs::write(
            &path,
            "{\"instance_id\": \"a\", \"hits\": [{\"docid\": \"x.py\", \"score\": 2.5}, {\"docid\": \"y.py\", \"score\": 1}]}\n\n\
             {\"instance_id\": \"b\", \"hits\": []}\n",
        )
        .unwrap();
        let all = read(&path, None).unwrap();
        assert_eq!((all["a"].len(), all["b"].len()), (2, 0));
        assert_eq!(read(&path, Some(1)).unwrap()["a"], ["x.py"]);
        std::fs::write(&path, "{\"instance_id\": \"a\"}\n").unwrap();
        let error = read(&path, None).unwrap_err();
        assert!(
            error.to_line().contains("line 1") && error.to_line().contains("hits"),
            "{}",
            error.to_line()
        );
        assert!(read(&dir.path().join("x"), None).unwrap_err().hint().unwrap().contains("bm25-retrieval"));
    }
}
