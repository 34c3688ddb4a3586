//! A `tokenizer.json`, opened and used on a short text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pearlpoint::model::Chat;

fuzz_target!(|bytes: &[u8]| {
    pearlpoint_fuzz::allow_caught_panics();
    if let Ok(chat) = Chat::from_bytes(bytes, None, &[]) {
        let _ = (chat.unknown("Words, 12 and ½ more.").is_ok(), chat.decode(&[0, 1, 7], true).is_ok());
    }
});
