//! L14: nothing from the network, the disk or a client makes a node panic. That it does not grow without bound is for
//! [`super::limits`].

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Broken;

/// Does something with a node that must not panic, and says what it said if it does.
pub fn guarded<T>(does: impl FnOnce() -> T) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(does)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Broken::new("no_panic", format!("L14: it panics: {}", text.unwrap_or("without a word")))
    })
}
