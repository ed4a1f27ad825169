//! What a step costs at least, whatever the machine: bytes to read and operations to compute.

use super::ModelConfig;
use crate::backend::{Batch, PeakRates};

/// The least work of one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepCost {
    /// Bytes to read: the weights of all layers and of the head once, and each sequence's visible keys and values once.
    pub bytes: f64,
    /// Floating-point operations of the matrix products, a multiply-add counting two: `2 · weights` for each token,
    /// `2 · hidden · vocab` for each row of logits, and `4 · num_heads · head_dim` for each visible key of each token
    /// in each layer (QKᵀ and PV).
    pub operations: f64,
}

impl StepCost {
    /// The cost of `batch`, with weights of `weight_bytes` and keys and values of `kv_element_bytes` an element.
    pub(super) fn new(
        config: &ModelConfig,
        weight_bytes: usize,
        kv_element_bytes: usize,
        batch: &Batch,
    ) -> Self {
        let heads = config.heads();
        let layer_weights = config.hidden_size
            * (heads.qkv_width() + heads.q_width() + 3 * config.intermediate_size)
            * config.num_layers;
        let head_weights = config.hidden_size * config.vocab_size;
        let key_bytes = (2 * heads.kv_width() * kv_element_bytes) as f64;
        let key_operations = (4 * heads.q_width()) as f64;
        let mut cost = Self {
            bytes: weight_bytes as f64,
            operations: 2.0 * layer_weights as f64 * batch.len() as f64
                + 2.0 * head_weights as f64 * batch.logits_rows().len() as f64,
        };
        for window in &config.windows {
            for sequence in batch.sequences() {
                let visible = |end: usize| window.map_or(end, |window| window.min(end));
                let first = sequence.first_position() + 1;
                // The first query token sees the oldest key that anyone sees.
                cost.bytes += (sequence.kv_len - first + visible(first)) as f64 * key_bytes;
                let pairs: usize = (first..=sequence.kv_len).map(visible).sum();
                cost.operations += pairs as f64 * key_operations;
            }
        }
        cost
    }

    /// Seconds that a machine with these rates needs at least: those of memory or of arithmetic, whichever are more.
    pub fn seconds(&self, rates: &PeakRates) -> f64 {
        (self.bytes / rates.read_bandwidth).max(self.operations / rates.matrix_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{BatchEntry, LogitsRows};

    const HIDDEN: usize = 8;
    const WEIGHT_BYTES: usize = 1000;

    /// Two layers of two query heads and one key/value head of four elements; the second layer's window is 3.
    fn config() -> ModelConfig {
        let json = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 10,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 7}"#;
        let mut config = ModelConfig::parse(json).unwrap();
        config.windows[1] = Some(3);
        config
    }

    /// Compares with a count of what each token sees; a sequence is its query tokens and its context.
    fn check(sequences: &[(usize, usize)], logits: LogitsRows) {
        let mut batch = Batch::default();
        for &(query_len, kv_len) in sequences {
            let tokens = vec![0; query_len];
            batch.push(BatchEntry { tokens: &tokens, kv_len, block_table: &[], prompt_len: 0, logits });
        }
        let (mut keys_read, mut pairs) = (0, 0);
        for &(query_len, kv_len) in sequences {
            for window in [usize::MAX, 3] {
                let sees = |query: usize, key: usize| key <= query && query - key < window;
                let queries = kv_len - query_len..kv_len;
                keys_read += (0..kv_len).filter(|&key| queries.clone().any(|query| sees(query, key))).count();
                pairs += queries.flat_map(|query| (0..kv_len).filter(move |&key| sees(query, key))).count();
            }
        }
        let weights = 2 * (HIDDEN * 16 + HIDDEN * 8 + 3 * HIDDEN * 10);
        let rows = batch.logits_rows().len();
        let cost = StepCost::new(&config(), WEIGHT_BYTES, 2, &batch);
        assert_eq!(cost.bytes, (WEIGHT_BYTES + keys_read * 2 * 4 * 2) as f64, "{sequences:?}");
        let operations = 2 * weights * batch.len() + 2 * HIDDEN * 7 * rows + pairs * 2 * 2 * 2 * 4;
        assert_eq!(cost.operations, operations as f64, "{sequences:?}");
    }

    #[test]
    fn the_cost_is_the_count() {
        check(&[(1, 1)], LogitsRows::Last);
        check(&[(1, 10), (1, 2)], LogitsRows::Last);
        check(&[(6, 6)], LogitsRows::None);
        check(&[(4, 9), (1, 5)], LogitsRows::All);
    }

    #[test]
    fn the_slower_of_memory_and_arithmetic_decides() {
        let rates = PeakRates { read_bandwidth: 10.0, matrix_rate: 100.0 };
        assert_eq!(StepCost { bytes: 20.0, operations: 20.0 }.seconds(&rates), 2.0);
        assert_eq!(StepCost { bytes: 20.0, operations: 300.0 }.seconds(&rates), 3.0);
    }
}
