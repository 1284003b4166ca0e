//! What was delivered to a client that it did not take yet.

use std::collections::VecDeque;

use super::config::GatewayConfig;
use super::io::Failure;

#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// The size of each part, the oldest first.
    parts: VecDeque<usize>,
    bytes: usize,
}

impl Window {
    pub(super) fn deliver(&mut self, bytes: usize) {
        self.parts.push_back(bytes);
        self.bytes += bytes;
    }

    pub(super) fn take(&mut self, chunks: u64) {
        let count = usize::try_from(chunks).unwrap_or(usize::MAX).min(self.parts.len());
        self.bytes -= self.parts.drain(..count).sum::<usize>();
    }

    /// Fails at a client that lets too much wait.
    pub(super) fn check(&self, config: &GatewayConfig) -> Result<(), Failure> {
        if self.parts.len() > config.untaken || self.bytes > config.untaken_bytes {
            return Err(Failure::TooSlow { chunks: self.parts.len() as u64, bytes: self.bytes as u64 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_counts_and_bytes_are_bounded() {
        let config = GatewayConfig { untaken: 2, untaken_bytes: 10, ..GatewayConfig::default() };
        let mut window = Window::default();
        (0..3).for_each(|_| window.deliver(1));
        assert_eq!(window.check(&config), Err(Failure::TooSlow { chunks: 3, bytes: 3 }));
        window.take(1);
        assert_eq!(window.check(&config), Ok(()));
        window.take(u64::MAX);
        window.deliver(11);
        assert_eq!(window.check(&config), Err(Failure::TooSlow { chunks: 1, bytes: 11 }));
    }
}
