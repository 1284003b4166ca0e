//! Waiting for a condition, with a deadline and the reason in the failure.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How often something is looked at that cannot be awaited: often, since times are measured with it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until `look` finds something, and gives how long that took with it.
///
/// # Panics
/// Nothing is found in time: names `what`, and what the last look said.
pub async fn until<T, Why: Debug>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<T, Why>) -> T {
    let began = Instant::now();
    loop {
        let why = match look().await {
            Ok(found) => return found,
            Err(why) => why,
        };
        assert!(began.elapsed() < within, "not within {within:?}: {what}. The last look said: {why:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// [`until`], for a plain condition.
///
/// # Panics
/// It does not hold in time.
pub async fn until_true(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) {
    until(what, within, async || if holds().await { Ok(()) } else { Err("not yet") }).await;
}
