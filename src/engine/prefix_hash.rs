//! Names for the contents of KV blocks: a block's hash stands for its tokens and for all tokens before them.

use sha2::{Digest, Sha256};

/// Name of a full block's keys and values.
///
/// Half of a SHA-256, so that not even prompts made for it collide, and equal hashes can be taken for equal tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BlockHash([u8; 16]);

impl BlockHash {
    fn of(parent: [u8; 16], tokens: &[u32]) -> Self {
        let mut hasher = Sha256::new_with_prefix(parent);
        for token in tokens {
            hasher.update(token.to_le_bytes());
        }
        let digest = hasher.finalize();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }
}

/// The hashes of one sequence's full blocks, each made of the one before it and of the block's tokens.
#[derive(Debug)]
pub(super) struct HashChain {
    root: [u8; 16],
    hashes: Vec<BlockHash>,
}

impl HashChain {
    /// A chain without blocks. Sequences of different `rotation_class` share nothing.
    pub(super) fn new(rotation_class: usize) -> Self {
        let mut root = [0; 16];
        root[..8].copy_from_slice(&(rotation_class as u64).to_le_bytes());
        Self { root, hashes: Vec::new() }
    }

    /// Hashes the blocks that `tokens`, those of the last call with new ones at the end, have filled since then.
    pub(super) fn extend(&mut self, tokens: &[u32], block_size: usize) {
        let known = self.hashes.len() * block_size;
        for block in tokens[known..].chunks_exact(block_size) {
            let parent = self.hashes.last().map_or(self.root, |hash| hash.0);
            self.hashes.push(BlockHash::of(parent, block));
        }
    }

    /// The hash of the block with this number in the sequence, if it is full and was hashed.
    pub(super) fn get(&self, block: usize) -> Option<&BlockHash> {
        self.hashes.get(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(rotation_class: usize, tokens: &[u32]) -> Vec<BlockHash> {
        let mut chain = HashChain::new(rotation_class);
        chain.extend(tokens, 2);
        chain.hashes
    }

    #[test]
    fn a_hash_depends_on_all_tokens_up_to_its_block() {
        let base = hashes(0, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(base.len(), 3);
        for (tokens, equal) in [
            (&[1, 2, 3, 4, 5, 6, 7][..], 3),
            (&[1, 2, 3, 4, 5], 2),
            (&[1, 2, 3, 4, 6, 5], 2),
            (&[1, 2, 4, 3, 5, 6], 1),
            (&[2, 1, 3, 4, 5, 6], 0),
            (&[3, 4, 1, 2], 0),
        ] {
            let other = hashes(0, tokens);
            let same = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert_eq!(same, equal, "{tokens:?}");
        }
        assert!(hashes(9, &[1, 2, 3, 4]).iter().zip(&base).all(|(a, b)| a != b));
    }

    #[test]
    fn it_makes_no_difference_how_tokens_arrive() {
        let tokens: Vec<u32> = (0..100).collect();
        let mut chain = HashChain::new(5);
        for end in [0, 1, 3, 4, 50, 99, 100] {
            chain.extend(&tokens[..end], 2);
        }
        assert_eq!(chain.hashes, hashes(5, &tokens));
        assert!(chain.get(49).is_some() && chain.get(50).is_none());
    }
}
