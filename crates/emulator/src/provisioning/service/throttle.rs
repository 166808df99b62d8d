//! Counting calls within a span of time.

use std::time::{Duration, Instant};

use super::Error;

/// So many within so long.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    /// What is bounded, for the refused.
    pub(super) what: &'static str,
    pub(super) most: u32,
    pub(super) span: Duration,
}

/// What was counted; a span begins with the first call after the last one.
#[derive(Default)]
pub(super) struct Window {
    began_at: Option<Instant>,
    count: u32,
}

impl Window {
    /// Counts a call.
    ///
    /// # Errors
    ///
    /// It is one too many; the error says how long this span lasts.
    pub(super) fn count(&mut self, bound: Bound, now: Instant) -> Result<(), Error> {
        let Bound { what, most, span } = bound;
        let elapsed = self.began_at.map(|at| now.saturating_duration_since(at));
        let left = elapsed.and_then(|elapsed| span.checked_sub(elapsed));
        let left = left.filter(|left| !left.is_zero()).unwrap_or_else(|| {
            self.began_at = Some(now);
            self.count = 0;
            span
        });
        if self.count >= most {
            let span = span.as_secs();
            return Err(Error::throttled(
                format!("Too many {what}: there may be {most} in {span} s."),
                u32::try_from(left.as_secs() + 1).unwrap_or(u32::MAX),
            ));
        }
        self.count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(most: u32) -> Bound {
        Bound {
            what: "calls",
            most,
            span: Duration::from_secs(10),
        }
    }

    #[test]
    fn takes_as_many_as_it_says_and_begins_anew_after_its_span() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::default();
        assert!(window.count(bound(2), at(0)).is_ok());
        assert!(window.count(bound(2), at(9)).is_ok());
        let refused = window.count(bound(2), at(9)).unwrap_err();
        assert_eq!(refused.code.status(), 429);
        assert_eq!(refused.retry_after_s, Some(2));
        assert!(window.count(bound(2), at(10)).is_ok());
    }

    #[test]
    fn none_are_taken_if_none_may_be() {
        let mut window = Window::default();
        assert!(window.count(bound(0), Instant::now()).is_err());
    }
}
