//! Seeded randomness, forked by label, so that a draw in one part does not shift another's.

use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Where all randomness of a node comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

/// A stream of reproducible draws.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Seed {
    /// A seed from a number.
    pub fn from_number(number: u64) -> Seed {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Seed(bytes)
    }

    /// Another seed, that depends on this one and the label alone.
    pub fn fork(&self, label: &str) -> Seed {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(label);
        Seed(hasher.finalize().into())
    }

    /// The draws of this seed.
    pub fn rng(&self) -> Rng {
        Rng(ChaCha8Rng::from_seed(self.0))
    }
}

impl Rng {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, evenly (the bias is below 2^-64 × bound); 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }

    /// True `parts` times in `of`.
    pub fn chance(&mut self, parts: u64, of: u64) -> bool {
        self.below(of) < parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_pinned() {
        let draw = || -> Vec<u64> {
            let mut rng = Seed::from_number(7).fork("repair").rng();
            (0..4).map(|_| rng.below(1000)).collect()
        };
        assert_eq!(draw(), draw());
        assert_eq!(draw(), [846, 82, 636, 599], "what runs depend on has changed: every kept seed loses its meaning");
    }
}
