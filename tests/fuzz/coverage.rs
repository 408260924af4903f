//! Edges of the program that inputs have reached: in a build for it, see `tests/fuzz/run`.

use crate::sys::coverage;

/// What has been seen so far: for each edge, a bit for each order of magnitude of how often one input has taken it.
#[derive(Debug, Default)]
pub(super) struct Coverage(Vec<u8>);

impl Coverage {
    /// Before an input.
    #[expect(clippy::unused_self, reason = "the counters are the process's")]
    pub(super) fn clear(&mut self) {
        coverage::counters().fill(0);
    }

    /// After an input: whether it has reached what none before it had.
    pub(super) fn is_new(&mut self) -> bool {
        // A copy, because this loop is counted itself.
        let counters = coverage::counters().to_vec();
        self.0.resize(counters.len(), 0);
        let mut is_new = false;
        for (counts, seen) in counters.chunks(64).zip(self.0.chunks_mut(64)) {
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            for (count, seen) in counts.iter().zip(seen).filter(|(count, _)| **count != 0) {
                let bit = 1 << count.ilog2();
                is_new |= *seen & bit == 0;
                *seen |= bit;
            }
        }
        is_new
    }

    /// How many have been reached; 0 in a build that does not count.
    pub(super) fn edges(&self) -> usize {
        self.0.iter().filter(|seen| **seen != 0).count()
    }
}
