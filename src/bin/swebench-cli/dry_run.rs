//! `run-api --dry-run`: what a run would send and cost, as a table or as JSON Lines.

use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::follow::follow;
use crate::interrupt;
use crate::output;
use crate::progress::bar_style;
use crate::swebench::{Job, Level, sys};
use crate::talk::Talk;

/// Instances that the table names before it only counts them.
const MOST_NAMED: usize = 20;

/// Shows the job of a dry run until its end.
pub(crate) fn show(job: Job, talk: &Talk, json: bool) -> Result<Exit, Failure> {
    let mut problems = Problems::default();
    bar_style(talk, "{spinner} {msg}");
    talk.bar().set_message("reading the dataset");
    talk.bar().enable_steady_tick(std::time::Duration::from_millis(120));
    let result = follow(job, |kind, event| {
        match kind {
            sys::SWEBENCH_EVENT_STARTED => {
                let to_count = count(event, "total") - count(event, "already_done");
                bar_style(talk, "{bar:30} {pos}/{len} counted");
                talk.bar().set_length(to_count);
            }
            sys::SWEBENCH_EVENT_PLANNED => {
                talk.bar().inc(1);
                problems.add(event);
                if json {
                    talk.bar().suspend(|| output::line(&event.to_string()))?;
                }
            }
            sys::SWEBENCH_EVENT_WARNING => {
                talk.say(Level::Warn, event["message"].as_str().unwrap_or_default(), event);
            }
            _ => {}
        }
        Ok(())
    });
    talk.bar().finish_and_clear();
    let result = result?;
    output::write(if json { format!("{result}\n") } else { table(&result, &problems) }.as_bytes())?;
    Ok(match result["interrupted"].as_bool() == Some(true) || interrupt::happened() {
        true => Exit::Interrupted,
        false => Exit::Done,
    })
}

/// Instances that would not be sent, or may be refused, with the reasons.
#[derive(Debug, Default)]
struct Problems {
    errors: Vec<(String, String)>,
    doubts: Vec<(String, String)>,
}

impl Problems {
    fn add(&mut self, event: &Value) {
        for (reason, list) in [(&event["error"], &mut self.errors), (&event["doubt"], &mut self.doubts)] {
            if let Some(reason) = reason.as_str().filter(|_| list.len() < MOST_NAMED) {
                list.push((event["instance_id"].as_str().unwrap_or_default().to_owned(), reason.to_owned()));
            }
        }
    }
}

fn table(result: &Value, problems: &Problems) -> String {
    let number = |key: &str| grouped(count(result, key));
    let dollars = |value: &Value| value.as_f64().map_or_else(|| "unknown".to_owned(), dollars);
    let mut table = format!(
        "instances       {}: {} done before, {} to send, {} not; {} left out by the filter\n",
        number("total"),
        number("already_done"),
        number("sendable"),
        number("refused"),
        number("skipped"),
    );
    let mut row = |name: &str, text: String| table.push_str(&format!("{name:<15} {text}\n"));
    let methods = result["methods"].as_object().into_iter().flatten();
    let methods: Vec<String> =
        methods.map(|(method, number)| counted_by(method, number.as_u64().unwrap_or_default())).collect();
    let methods = if methods.is_empty() { String::new() } else { format!(", {}", methods.join(", ")) };
    row("prompt tokens", format!("{}{methods}", number("prompt_tokens")));
    let lengths = &result["lengths"];
    if lengths.is_object() {
        let length = |key: &str| grouped(count(lengths, key));
        row(
            "prompt lengths",
            format!("{} to {}, half up to {}", length("least"), length("most"), length("median")),
        );
    }
    row(
        "answers",
        match result["longest_answer"].as_u64() {
            Some(longest) => format!("at most {} tokens each", grouped(longest)),
            None => "as long as the service lets them be; give --max-tokens for a bound".into(),
        },
    );
    if let Some(context) = result["context"].as_u64() {
        row("context", format!("{} tokens", grouped(context)));
    }
    if let [input, cached, output] = result["rates"].as_array().map_or(&[][..], Vec::as_slice) {
        let [input, cached, output] = [input, cached, output].map(dollars);
        row("price", format!("a million tokens: {input} in, {cached} cached, {output} out"));
        row(
            "cost",
            format!(
                "{} without any answer, {} with the longest",
                dollars(&result["cost_least"]),
                dollars(&result["cost_most"])
            ),
        );
        row("spent before", dollars(&result["spent"]));
        row(
            "reserved",
            format!(
                "up to {} for one instance in flight, where --max-cost is given",
                dollars(&result["cost_reserved"])
            ),
        );
    } else {
        row("cost", "unknown: no price; --prices FILE gives one".into());
    }
    row("output", result["output_file"].as_str().unwrap_or_default().to_owned());
    for (title, list, all) in [
        ("Not to be sent", &problems.errors, count(result, "refused")),
        ("May be refused", &problems.doubts, count(result, "doubtful")),
    ] {
        if list.is_empty() {
            continue;
        }
        table.push_str(&format!("\n{title}:\n"));
        let width = list.iter().map(|(id, _)| id.len()).max().unwrap_or_default();
        for (id, reason) in list {
            table.push_str(&format!("  {id:<width$}  {reason}\n"));
        }
        if all > list.len() as u64 {
            table.push_str(&format!("  and {} more, which --json lists\n", all - list.len() as u64));
        }
    }
    table
}

/// How many prompts were counted in which way.
fn counted_by(method: &str, number: u64) -> String {
    let number = grouped(number);
    match method {
        "estimate" => format!("{number} estimated from their characters"),
        "provider" => format!("{number} counted by the provider"),
        method => format!("{number} counted with {method}"),
    }
}

fn count(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

/// `$12.34`, with more places below ten cents.
fn dollars(dollars: f64) -> String {
    let places = match dollars {
        0.0 | 0.1.. => 2,
        0.001..0.1 => 4,
        _ => 6,
    };
    format!("${dollars:.places$}")
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_table_names_what_is_not_sent() {
        let mut problems = Problems::default();
        for number in 0..30 {
            problems
                .add(&json!({"instance_id": format!("a__b-{number}"), "error": "too long", "doubt": null}));
        }
        problems.add(&json!({"instance_id": "c", "error": null, "doubt": "perhaps"}));
        let result = json!({"total": 1031, "sendable": 1001, "refused": 30, "doubtful": 1, "prompt_tokens": 5000,
            "methods": {"estimate": 1000, "o200k": 1}, "rates": [2.5, 1.25, 10.0], "cost_least": 0.0125,
            "cost_most": null, "spent": 0.0, "lengths": {"least": 1, "median": 4, "most": 9}});
        let table = table(&result, &problems);
        for part in [
            "1,031: 0 done before, 1,001 to send, 30 not",
            "5,000, 1,000 estimated from their characters, 1 counted with o200k",
            "$0.0125 without any answer, unknown with the longest",
            "a__b-19  too long\n  and 10 more, which --json lists\n\nMay be refused:\n  c  perhaps\n",
        ] {
            assert!(table.contains(part), "no {part:?} in\n{table}");
        }
    }
}
