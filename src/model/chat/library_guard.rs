//! Guard around libraries that read foreign files and may panic.
//!
//! A closure that calls such a library in, its result or the panic's message out; nothing is printed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is caught, and so not printed.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, and gives the message where it panics. What `work` changed before a panic is not to be used afterwards.
///
/// # Errors
/// A panic, as text.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !CAUGHT.get() {
                before(panic);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(outer);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("the library panics: {}", text.unwrap_or_else(|| "without a message".into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(caught(|| 3), Ok(3));
        let error = caught(|| [1, 2][..][std::hint::black_box(5)]).unwrap_err();
        assert!(error.contains("panics: index out of bounds"), "{error}");
        assert_eq!(
            caught(|| caught(|| panic!("inner")).map(|()| 1)).unwrap(),
            Err("the library panics: inner".into())
        );
    }
}
