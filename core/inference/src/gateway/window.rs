//! What was delivered to a client that it did not take yet.

use std::collections::VecDeque;

use super::config::GatewayConfig;
use super::io::Failure;

/// What a part costs beside its text.
const PART_BYTES: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// The size of each part, the oldest first.
    parts: VecDeque<usize>,
    bytes: usize,
}

impl Window {
    pub(super) fn deliver(&mut self, bytes: usize) {
        self.parts.push_back(bytes + PART_BYTES);
        self.bytes += bytes + PART_BYTES;
    }

    pub(super) fn take(&mut self, chunks: u64) {
        let count = usize::try_from(chunks).unwrap_or(usize::MAX).min(self.parts.len());
        self.bytes -= self.parts.drain(..count).sum::<usize>();
    }

    /// Fails at a client that lets too much wait.
    pub(super) fn check(&self, config: &GatewayConfig) -> Result<(), Failure> {
        if self.bytes > config.untaken_bytes {
            return Err(Failure::TooSlow { chunks: self.parts.len() as u64, bytes: self.bytes as u64 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_and_small_parts_count_for_what_they_cost() {
        let config = GatewayConfig { untaken_bytes: 3 * PART_BYTES, ..GatewayConfig::default() };
        let mut window = Window::default();
        (0..3).for_each(|_| window.deliver(0));
        assert_eq!(window.check(&config), Ok(()));
        window.deliver(1);
        let bytes = 4 * PART_BYTES as u64 + 1;
        assert_eq!(window.check(&config), Err(Failure::TooSlow { chunks: 4, bytes }));
        window.take(1);
        assert_eq!(window.check(&config), Err(Failure::TooSlow { chunks: 3, bytes: bytes - PART_BYTES as u64 }));
        window.take(1);
        assert_eq!(window.check(&config), Ok(()));
        window.take(u64::MAX);
        window.deliver(3 * PART_BYTES);
        assert!(window.check(&config).is_err());
    }
}
