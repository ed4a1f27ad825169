//! PyTorch's attention in a process beside this one: `sdpa.py` answers one line of JSON for each line it reads.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use swebench_infer::backend::HeadLayout;
use swebench_infer::error::{Error, ErrorKind, Result};

const SCRIPT: &str = include_str!("sdpa.py");

/// One shape to measure.
pub struct Request {
    pub heads: HeadLayout,
    pub query_len: usize,
    pub kv_len: usize,
    pub turns: usize,
}

/// The process.
pub struct Torch {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Torch {
    /// Starts it with the interpreter `python`.
    pub fn start(python: &str) -> Result<Self> {
        let mut child = Command::new(python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error::io("start", python, error))?;
        let missing = || Error::internal("a child without pipes");
        let requests = child.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok(Self { child, requests, answers })
    }

    /// Seconds of each path of PyTorch that takes this shape.
    pub fn measure(&mut self, request: &Request) -> Result<Vec<(String, f64)>> {
        let HeadLayout { num_heads, num_kv_heads, head_dim } = request.heads;
        let line = json!({
            "num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim,
            "query_len": request.query_len, "kv_len": request.kv_len, "turns": request.turns,
        });
        let failed = |error| Error::io("talk to", "sdpa.py", error);
        writeln!(self.requests, "{line}").map_err(failed)?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(failed)?;
        let answer: Value = serde_json::from_str(&answer)
            .map_err(|error| Error::new(ErrorKind::InvalidData, "sdpa.py's answer").with_source(error))?;
        let paths = answer.as_object().into_iter().flatten();
        Ok(paths.filter_map(|(path, seconds)| Some((path.clone(), seconds.as_f64()?))).collect())
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // It ends by itself when nothing more is asked; that it cannot be ended is no failure of the figures.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
