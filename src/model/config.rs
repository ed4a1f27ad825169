//! `config.json`, read as written and resolved once.
/// x
pub struct ModelConfig {}
