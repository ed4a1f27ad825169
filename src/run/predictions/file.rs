//! The predictions file of a run: locked, mended when it is opened, and appended to line by line.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::line_writer::LineWriter;
use super::scan::{Line, for_each_line};
use super::{Record, ascii_json, lock};
use crate::error::{Error, Result};

/// A file of [`Record`]s, predictions above all, that this process alone writes.
///
/// At every moment the file on the disk holds whole lines and at most one torn one at its end, whenever the process is
/// killed: lines are appended with one `write` and synced, and every other change is made to a copy that then replaces
/// the file. The lock is on the file itself and ends with the process.
#[derive(Debug)]
pub struct PredictionsFile {
    path: PathBuf,
    writer: LineWriter<File>,
    finished: HashSet<String>,
    failed: HashSet<String>,
    set_aside: usize,
}

impl PredictionsFile {
    /// Opens the file, creating it and its directory when they are missing.
    ///
    /// Lines that are torn or no predictions are moved to `<file>.torn`; [`PredictionsFile::set_aside`] counts them.
    ///
    /// # Errors
    /// `Busy` when another run has the file; `Io` when the file or its directory cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir).map_err(|error| Error::io("create the output directory", dir, error))?;
        }
        let file = lock::open_locked(path)?;
        // A symbolic link stays one: the file that it points to is what gets replaced.
        let path = fs::canonicalize(path).map_err(|error| Error::io("resolve", path, error))?;
        let contents = Contents::read(&file, &path)?;
        if contents.bytes == 0 {
            sync_directory(&path);
        }
        let set_aside = contents.unreadable;
        let mut opened = Self {
            writer: LineWriter::new(file, contents.bytes),
            path,
            finished: contents.finished,
            failed: contents.failed,
            set_aside,
        };
        if contents.unreadable > 0 {
            opened.save_unreadable()?;
        }
        if contents.unreadable > 0 || contents.lacks_newline {
            opened.rewrite(|_| true)?;
        }
        Ok(opened)
    }

    /// Where the file is, links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to tell the user when opening the file moved lines to [`PredictionsFile::torn_path`].
    pub fn set_aside_warning(&self) -> Option<String> {
        (self.set_aside > 0).then(|| {
            format!(
                "{} lines of {} were torn or no predictions; they are now in {}",
                self.set_aside,
                self.path.display(),
                self.torn_path().display()
            )
        })
    }

    /// Number of lines that were moved to [`PredictionsFile::torn_path`] when the file was opened.
    pub fn set_aside(&self) -> usize {
        self.set_aside
    }

    /// Where unreadable lines go: `<file>.torn`.
    pub fn torn_path(&self) -> PathBuf {
        self.beside(".torn")
    }

    /// Whether the file has a finished prediction of this instance.
    pub fn is_finished(&self, instance_id: &str) -> bool {
        self.finished.contains(instance_id)
    }

    /// Whether the file has a failure record, and no finished prediction, of this instance.
    pub fn has_failed(&self, instance_id: &str) -> bool {
        self.failed.contains(instance_id)
    }

    /// Removes the failure records of the instances that are `tried_again`, so that each id keeps one line.
    ///
    /// Failure records that a finished prediction supersedes go as well.
    pub fn discard_failures(&mut self, tried_again: impl Fn(&str) -> bool) -> Result<()> {
        let is_stale = |instance_id: &str| tried_again(instance_id) || self.finished.contains(instance_id);
        let mut stale = HashSet::new();
        for_each_line(self.writer.storage(), &self.path, |line| {
            match Line::parse(line) {
                Line::Failed(instance_id) if is_stale(&instance_id) => stale.insert(instance_id),
                _ => false,
            };
            Ok(())
        })?;
        if stale.is_empty() {
            return Ok(());
        }
        self.failed.retain(|instance_id| !stale.contains(instance_id));
        self.rewrite(|line| !matches!(line, Line::Failed(instance_id) if stale.contains(instance_id)))
    }

    /// Appends one line; when this returns it is on the disk.
    ///
    /// # Errors
    /// `Io` when the line could not be written, the disk being full for one: the file is then as it was.
    /// `Internal` when the instance has a line already.
    pub fn append(&mut self, record: &impl Record) -> Result<()> {
        self.append_all(std::iter::once(record))
    }

    /// Appends a line for each, of which a disk takes many in the time that it takes for one.
    ///
    /// # Errors
    /// As [`PredictionsFile::append`]; then none of them is in the file.
    pub fn append_all<'a, R: Record + 'a>(
        &mut self,
        records: impl Iterator<Item = &'a R> + Clone,
    ) -> Result<()> {
        let (mut lines, mut new) = (Vec::new(), HashSet::new());
        for record in records.clone() {
            let instance_id = record.instance_id();
            if self.is_finished(instance_id) || self.has_failed(instance_id) || !new.insert(instance_id) {
                let twice = format!("instance {instance_id} was recorded twice");
                return Err(Error::internal(twice).with_path(&self.path));
            }
            lines.append(&mut ascii_json::to_line(record)?);
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.writer.append(&lines).map_err(|error| {
            Error::io("append to the output file", &self.path, error).with_hint(
                "the lines so far are safe; the same command continues once the file can be written",
            )
        })?;
        for record in records {
            let ids = if record.is_failure() { &mut self.failed } else { &mut self.finished };
            ids.insert(record.instance_id().to_owned());
        }
        Ok(())
    }

    /// Adds the unreadable lines to `<file>.torn`. A kill before they leave the file adds them there once more.
    fn save_unreadable(&self) -> Result<()> {
        let torn_path = self.torn_path();
        let error = |error| Error::io("set aside torn lines", &torn_path, error);
        let torn = OpenOptions::new().append(true).create(true).open(&torn_path).map_err(error)?;
        let mut writer = BufWriter::new(&torn);
        for_each_line(self.writer.storage(), &self.path, |line| match Line::parse(line) {
            Line::Unreadable => write_line(&mut writer, line).map(drop).map_err(error),
            _ => Ok(()),
        })?;
        writer.flush().map_err(error)?;
        torn.sync_all().map_err(error)
    }

    /// Replaces the file by a copy of the readable lines to `keep`, in one step that a kill cannot divide.
    fn rewrite(&mut self, keep: impl Fn(&Line) -> bool) -> Result<()> {
        let copy_path = self.beside(".rewrite");
        let error = |error| Error::io("rewrite the output file", &copy_path, error);
        match fs::remove_file(&copy_path) {
            // What a killed run left: its original is still in place.
            Ok(()) => {}
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {}
            Err(other) => return Err(error(other)),
        }
        // Locked before it gets the name, so that there is no moment without a lock.
        let copy = lock::create_locked(&copy_path)?;
        let mut bytes = 0;
        let mut writer = BufWriter::new(&copy);
        for_each_line(self.writer.storage(), &self.path, |line| {
            let kind = Line::parse(line);
            if !matches!(kind, Line::Unreadable | Line::Blank) && keep(&kind) {
                bytes += write_line(&mut writer, line).map_err(error)?;
            }
            Ok(())
        })?;
        writer.flush().map_err(error)?;
        drop(writer);
        let permissions = self.writer.storage().metadata().map_err(error)?.permissions();
        copy.set_permissions(permissions).map_err(error)?;
        copy.sync_all().map_err(error)?;
        fs::rename(&copy_path, &self.path).map_err(error)?;
        sync_directory(&self.path);
        self.writer = LineWriter::new(copy, bytes);
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(suffix);
        PathBuf::from(name)
    }
}

/// What a file holds when it is opened.
#[derive(Default)]
struct Contents {
    bytes: u64,
    finished: HashSet<String>,
    failed: HashSet<String>,
    unreadable: usize,
    lacks_newline: bool,
}

impl Contents {
    fn read(file: &File, path: &Path) -> Result<Self> {
        let mut contents = Self::default();
        for_each_line(file, path, |line| {
            contents.bytes += line.len() as u64;
            contents.lacks_newline = !line.ends_with(b"\n");
            match Line::parse(line) {
                Line::Finished(instance_id) => {
                    contents.finished.insert(instance_id);
                }
                Line::Failed(instance_id) => {
                    contents.failed.insert(instance_id);
                }
                Line::Blank => {}
                Line::Unreadable => contents.unreadable += 1,
            }
            Ok(())
        })?;
        contents.failed.retain(|instance_id| !contents.finished.contains(instance_id));
        Ok(contents)
    }
}

/// Writes `line` with exactly one newline and returns its length.
fn write_line(writer: &mut impl Write, line: &[u8]) -> std::io::Result<u64> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    writer.write_all(line)?;
    writer.write_all(b"\n")?;
    Ok(line.len() as u64 + 1)
}

/// Makes the file's name as durable as its content; some network file systems refuse, and then nothing can be done.
fn sync_directory(path: &Path) {
    let synced = path.parent().map(|dir| File::open(dir).and_then(|dir| dir.sync_all()));
    if let Some(Err(error)) = synced {
        log::debug!("{}: cannot sync the directory: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::Prediction;
    use super::*;
    use crate::error::ErrorKind;

    fn finished(instance_id: &str) -> Prediction {
        Prediction {
            instance_id: instance_id.into(),
            model_name_or_path: "m".into(),
            full_output: Some(format!("é\n{instance_id}")),
            model_patch: "--- a/x\n".into(),
            ..Prediction::default()
        }
    }

    fn failed(instance_id: &str) -> Prediction {
        Prediction::failed(instance_id.into(), "m".into(), "no luck".into())
    }

    fn lines_of(predictions: &[Prediction]) -> Vec<u8> {
        predictions.iter().flat_map(|prediction| ascii_json::to_line(prediction).unwrap()).collect()
    }

    /// A predictions file with this content, in its own directory.
    fn file_with(content: &[u8]) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.jsonl");
        fs::write(&path, content).unwrap();
        (dir, path)
    }

    fn read(path: &Path) -> Vec<Prediction> {
        let content = fs::read_to_string(path).unwrap();
        content.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn records_have_the_fields_of_the_reference_in_order() {
        let line = String::from_utf8(lines_of(&[finished("a")])).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"instance_id":"a","model_name_or_path":"m","full_output":"\u00e9\na","#,
                r#""model_patch":"--- a/x\n"}"#,
                "\n"
            )
        );
        let line = String::from_utf8(lines_of(&[failed("a")])).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"instance_id":"a","model_name_or_path":"m","full_output":null,"model_patch":"","error":"no luck"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn creates_directories_and_continues_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/run.jsonl");
        PredictionsFile::open(&path).unwrap().append(&finished("a")).unwrap();
        let mut file = PredictionsFile::open(&path).unwrap();
        assert!(file.is_finished("a") && !file.is_finished("b"));
        assert_eq!(file.append(&finished("a")).unwrap_err().kind(), ErrorKind::Internal);
        file.append(&finished("b")).unwrap();
        assert_eq!(read(&path), [finished("a"), finished("b")]);
    }

    #[test]
    fn a_kill_at_any_byte_loses_no_finished_prediction_and_doubles_none() {
        let records =
            [r#"{"instance_id":"a"}"#, r#"{"instance_id":"b","error":"x"}"#, r#"{"instance_id":"c"}"#];
        let whole = records.map(|record| format!("{record}\n")).concat();
        for cut in 0..=whole.len() {
            let (_dir, path) = file_with(&whole.as_bytes()[..cut]);
            let mut file = PredictionsFile::open(&path).unwrap();
            // A record is whole once its closing brace is there.
            let num_whole = whole[..cut].matches('}').count();
            let kept: String = whole.split_inclusive('\n').take(num_whole).collect();
            assert_eq!(fs::read_to_string(&path).unwrap(), kept, "cut at {cut}");
            let torn = &whole[kept.len().min(cut)..cut];
            assert_eq!(file.set_aside(), usize::from(!torn.is_empty()), "cut at {cut}");
            if !torn.is_empty() {
                assert_eq!(fs::read_to_string(file.torn_path()).unwrap(), format!("{torn}\n"));
            }

            file.discard_failures(|_| true).unwrap();
            for instance_id in ["a", "b", "c"] {
                if !file.is_finished(instance_id) {
                    file.append(&finished(instance_id)).unwrap();
                }
            }
            drop(file);
            let content = fs::read_to_string(&path).unwrap();
            let mut lines: Vec<_> = content.lines().map(|line| Line::parse(line.as_bytes())).collect();
            lines.sort_by_key(|line| format!("{line:?}"));
            assert_eq!(lines, ["a", "b", "c"].map(|id| Line::Finished(id.into())), "cut at {cut}");
        }
    }

    #[test]
    fn a_kill_while_rewriting_leaves_the_original() {
        let whole = lines_of(&[finished("a"), failed("b"), finished("c")]);
        let copy = lines_of(&[finished("a"), finished("c")]);
        for cut in [0, 1, copy.len() / 2, copy.len() - 1, copy.len()] {
            let (_dir, path) = file_with(&whole);
            let left_behind = path.with_file_name("run.jsonl.rewrite");
            fs::write(&left_behind, &copy[..cut]).unwrap();
            let mut file = PredictionsFile::open(&path).unwrap();
            file.discard_failures(|_| true).unwrap();
            assert_eq!(read(&path), [finished("a"), finished("c")]);
            assert!(!left_behind.exists());
        }
    }

    #[test]
    fn unreadable_lines_are_set_aside_wherever_they_are() {
        let mut content = lines_of(&[finished("a")]);
        content.extend_from_slice(b"{\"instance_id\": \"x\", {\"instance_id\": \"b\"}\n\n[]\n");
        content.extend_from_slice(&lines_of(&[finished("c")]));
        content.extend_from_slice(b"{\"instance");
        let (_dir, path) = file_with(&content);
        let file = PredictionsFile::open(&path).unwrap();
        assert_eq!(file.set_aside(), 3);
        assert_eq!(read(&path), [finished("a"), finished("c")]);
        assert_eq!(
            fs::read_to_string(file.torn_path()).unwrap(),
            "{\"instance_id\": \"x\", {\"instance_id\": \"b\"}\n[]\n{\"instance\n"
        );
        drop(file);
        assert_eq!(PredictionsFile::open(&path).unwrap().set_aside(), 0);
    }

    #[test]
    fn only_failures_that_are_tried_again_or_superseded_are_discarded() {
        let records = [failed("a"), finished("b"), failed("c"), failed("b"), failed("d")];
        let (_dir, path) = file_with(&lines_of(&records));
        let mut file = PredictionsFile::open(&path).unwrap();
        assert!(file.has_failed("a") && !file.has_failed("b"));
        file.discard_failures(|instance_id| instance_id == "c").unwrap();
        assert_eq!(read(&path), [failed("a"), finished("b"), failed("d")]);
        file.append(&finished("c")).unwrap();
        assert_eq!(file.append(&finished("a")).unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(read(&path).last(), Some(&finished("c")));
    }

    #[test]
    fn a_second_writer_is_refused_before_and_after_a_rewrite() {
        let (_dir, path) = file_with(&lines_of(&[failed("a")]));
        let mut file = PredictionsFile::open(&path).unwrap();
        let error = PredictionsFile::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("another run is writing this file"), "{error}");
        file.discard_failures(|_| true).unwrap();
        assert_eq!(PredictionsFile::open(&path).unwrap_err().kind(), ErrorKind::Busy);
        drop(file);
        PredictionsFile::open(&path).unwrap();
    }

    #[test]
    fn several_are_appended_at_once_or_none_is() {
        let (_dir, path) = file_with(b"");
        let mut file = PredictionsFile::open(&path).unwrap();
        file.append_all([finished("a"), failed("b")].iter()).unwrap();
        file.append_all(std::iter::empty::<&Prediction>()).unwrap();
        for twice in [[finished("c"), failed("c")], [finished("d"), finished("b")]] {
            assert_eq!(file.append_all(twice.iter()).unwrap_err().kind(), ErrorKind::Internal);
        }
        assert!(file.is_finished("a") && file.has_failed("b") && !file.is_finished("c"));
        assert_eq!(read(&path), [finished("a"), failed("b")]);
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let (dir, path) = file_with(&lines_of(&[failed("a")]));
        let link = dir.path().join("link.jsonl");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = PredictionsFile::open(&link).unwrap();
        file.discard_failures(|_| true).unwrap();
        file.append(&finished("a")).unwrap();
        assert!(link.is_symlink());
        assert_eq!(read(&path), [finished("a")]);
    }

    #[test]
    fn a_directory_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = PredictionsFile::open(dir.path()).unwrap_err();
        assert_eq!(error.path(), Some(dir.path()));
        let occupied = dir.path().join("file");
        fs::write(&occupied, "").unwrap();
        let error = PredictionsFile::open(&occupied.join("run.jsonl")).unwrap_err();
        assert!(error.to_string().contains("cannot create the output directory"), "{error}");
    }
}
