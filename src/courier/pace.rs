//! How fast to send to one recipient: a congestion window in bytes and a retransmission timeout.

use crate::model::Span;
use crate::model::limits::FRAME_BYTES_MAX;

/// Bytes on their way at first: a few full envelopes.
const WINDOW_INITIAL: usize = 4 * FRAME_BYTES_MAX;
/// Bytes on their way at least: one envelope can always be tried.
const WINDOW_MIN: usize = FRAME_BYTES_MAX;
/// Bytes on their way at most: what a recipient may have to hold while its disk is busy.
pub(super) const WINDOW_MAX: usize = 4 * 1024 * 1024;

/// The timeout before anything was measured (RFC 6298 section 2.1).
const TIMEOUT_INITIAL: Span = Span::from_secs(1);
/// The shortest timeout: a recipient's disk may take this long to sync.
const TIMEOUT_MIN: Span = Span::from_millis(300);
/// The longest timeout.
pub(super) const TIMEOUT_MAX: Span = Span::from_secs(60);

/// Slow start and multiplicative decrease (RFC 5681) in whole envelopes, with the timeout of RFC
/// 6298.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes that may be on their way.
    window: usize,
    /// Above this the window grows by about one envelope a round trip instead of doubling.
    threshold: usize,
    /// Smoothed round trip, once measured, and its variation.
    rtt: Option<(Span, Span)>,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { window: WINDOW_INITIAL, threshold: WINDOW_MAX, rtt: None }
    }

    /// Whether an envelope may be sent while so many bytes are on their way.
    pub(super) const fn allows(&self, in_flight: usize) -> bool {
        in_flight < self.window
    }

    /// A receipt came for so many bytes.
    pub(super) fn on_receipt(&mut self, bytes: usize) {
        let growth = if self.window < self.threshold {
            bytes
        } else {
            // One envelope for each window's worth of receipts.
            bytes.saturating_mul(FRAME_BYTES_MAX) / self.window.max(1)
        };
        self.window = self.window.saturating_add(growth).min(WINDOW_MAX);
    }

    /// A receipt came for an envelope that was sent once only (Karn's rule).
    pub(super) fn on_sample(&mut self, sample: Span) {
        let sample = sample.as_micros();
        let (smoothed, variation) = match self.rtt {
            None => (sample, sample / 2),
            Some((smoothed, variation)) => {
                let (smoothed, variation) = (smoothed.as_micros(), variation.as_micros());
                let error = smoothed.abs_diff(sample);
                ((smoothed * 7 + sample) / 8, (variation * 3 + error) / 4)
            }
        };
        self.rtt = Some((Span::from_micros(smoothed), Span::from_micros(variation)));
    }

    /// Something on its way got lost.
    pub(super) fn on_loss(&mut self) {
        self.threshold = (self.window / 2).max(WINDOW_MIN);
        self.window = WINDOW_MIN;
    }

    /// The timeout of an attempt: doubled with each, at most a minute.
    pub(super) fn timeout(&self, attempt: u16) -> Span {
        let base = match self.rtt {
            None => TIMEOUT_INITIAL,
            Some((smoothed, variation)) => {
                (smoothed + variation.times(4)).clamp(TIMEOUT_MIN, TIMEOUT_MAX)
            }
        };
        let doublings = u32::from(attempt.saturating_sub(1)).min(16);
        base.times(1 << doublings).min(TIMEOUT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_then_creeps_and_falls_on_loss() {
        let mut pace = Pace::new();
        assert!(pace.allows(WINDOW_INITIAL - 1) && !pace.allows(WINDOW_INITIAL));
        pace.on_receipt(WINDOW_INITIAL);
        assert!(pace.allows(2 * WINDOW_INITIAL - 1), "slow start");
        pace.on_loss();
        assert!(pace.allows(0) && !pace.allows(WINDOW_MIN));
        for _ in 0..10_000 {
            pace.on_receipt(FRAME_BYTES_MAX);
        }
        assert!(!pace.allows(WINDOW_MAX), "bounded");
    }

    #[test]
    fn the_timeout_follows_the_round_trip() {
        let mut pace = Pace::new();
        assert_eq!(pace.timeout(1), TIMEOUT_INITIAL);
        assert_eq!(pace.timeout(2), TIMEOUT_INITIAL.times(2));
        for _ in 0..50 {
            pace.on_sample(Span::from_millis(400));
        }
        assert!((400..500).contains(&pace.timeout(1).as_millis()), "{:?}", pace.timeout(1));
        assert_eq!(pace.timeout(u16::MAX), TIMEOUT_MAX);
    }
}
