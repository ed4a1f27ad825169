//! What an answer says in the predictions file, the same whichever way it came.

use super::plan::Planner;
use crate::client::{Choice, Money, Usage};
use crate::patch::model_patch;
use crate::run::predictions::{Prediction, Sample, TokenUsage};

/// The answers for an instance, and what they took.
pub(super) struct Answers {
    pub(super) instance_id: String,
    /// The prompt as it was sent.
    pub(super) text: String,
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Usage,
    /// `None` where the price is not known.
    pub(super) cost: Option<Money>,
    /// `None` where nobody waited for the answer.
    pub(super) latency_ms: Option<f64>,
}

impl Planner {
    /// The instance's record.
    pub(super) fn record(&self, answers: Answers) -> Prediction {
        let mut samples: Vec<Sample> = answers
            .choices
            .into_iter()
            .map(|choice| Sample {
                model_patch: model_patch(&choice.text, self.patch_mode()),
                finish_reason: choice.finish_reason.map(|reason| reason.name().to_owned()),
                full_output: choice.text,
            })
            .collect();
        let first = if samples.len() > 1 { samples[0].clone() } else { samples.pop().unwrap_or_default() };
        let (openai_text, anthropic_text) =
            if self.speaks_openai() { (Some(answers.text), None) } else { (None, Some(answers.text)) };
        Prediction {
            instance_id: answers.instance_id,
            model_name_or_path: self.model().to_owned(),
            full_output: Some(first.full_output),
            model_patch: first.model_patch,
            text: openai_text,
            text_inputs: anthropic_text,
            samples,
            finish_reason: first.finish_reason,
            usage: token_usage(&answers.usage),
            cost: Some(answers.cost),
            latency_ms: answers.latency_ms,
            error: None,
        }
    }

    /// The record of an instance that failed; `bill` is what its request took, when one was sent.
    pub(super) fn failure_record(
        &self,
        instance_id: String,
        reason: String,
        bill: Option<(&Usage, Option<Money>)>,
    ) -> Prediction {
        Prediction {
            usage: bill.and_then(|(usage, _)| token_usage(usage)),
            cost: bill.map(|(_, cost)| cost),
            ..Prediction::failed(instance_id, self.model().to_owned(), reason)
        }
    }
}

/// `None` when the service did not count: every prompt has tokens.
fn token_usage(usage: &Usage) -> Option<TokenUsage> {
    let count = |tokens: u64| usize::try_from(tokens).unwrap_or(usize::MAX);
    (*usage != Usage::default()).then(|| TokenUsage {
        prompt_tokens: count(usage.input_tokens),
        cached_tokens: count(usage.cached_tokens),
        cache_write_tokens: count(usage.cache_write_tokens),
        completion_tokens: count(usage.output_tokens),
        reasoning_tokens: count(usage.reasoning_tokens),
    })
}
