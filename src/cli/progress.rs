//! What is said while a command works: progress and remarks on stderr, and the wish to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

/// Talks on stderr, and hears Ctrl-C.
pub struct Console {
    quiet: bool,
    stop: Arc<AtomicBool>,
}

impl Console {
    pub fn new(quiet: bool) -> Console {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = stop.clone();
        // The first Ctrl-C stops at the next safe place, the second at once. Without a handler it is always at once.
        let _ = ctrlc::set_handler(move || {
            if heard.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        });
        Console { quiet, stop }
    }

    /// Whether to go on.
    pub fn should_continue(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    pub fn say(&self, remark: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("{remark}");
        }
    }

    /// A bar that shows only on a terminal.
    pub fn bar(&self, length: usize, what: &'static str) -> ProgressBar {
        self.styled(length, what, "{prefix:>12} {wide_bar} {pos}/{len} {per_sec} {eta} {msg}")
    }

    /// The same for bytes, of which nobody knows yet how many there are.
    #[cfg(feature = "hub")]
    pub fn bytes(&self, what: &'static str) -> ProgressBar {
        self.styled(0, what, "{prefix:>12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}")
    }

    fn styled(&self, length: usize, what: &'static str, template: &str) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(length as u64).with_prefix(what);
        // The templates are constants; a wrong one would only cost the bar its looks.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }
}
