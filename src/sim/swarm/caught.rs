//! A panic as something that was found, with its message and its place.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Where the last panic of this thread was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What `run` returns, or the words of its panic: `panic at FILE:LINE:COLUMN: message`. The panic is
/// reported as always, too.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    // Only the hook learns the place.
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string);
            // A thread that ends has nobody to tell.
            let _ = PLACE.try_with(|known| *known.borrow_mut() = place);
            before(info);
        }));
    });
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let place = PLACE.take().unwrap_or_else(|| "an unknown place".to_owned());
        format!("panic at {place}: {}", message(payload.as_ref()))
    })
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_keeps_its_message_and_place() {
        assert_eq!(caught(|| 7), Ok(7));
        let fixed = caught(|| panic!("like this")).unwrap_err();
        assert!(fixed.starts_with("panic at src/sim/swarm/caught.rs:"), "{fixed}");
        assert!(fixed.ends_with(": like this"), "{fixed}");
        let none: Vec<u8> = Vec::new();
        let indexed = caught(|| none[none.len()]).unwrap_err();
        assert!(indexed.ends_with("the len is 0 but the index is 0"), "{indexed}");
    }
}
