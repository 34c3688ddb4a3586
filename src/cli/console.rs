//! Remarks and progress bars on stderr, and Ctrl-C.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use pearlpoint::model::OtherWeights;
use pearlpoint::printable::one_line;
use pearlpoint::progress::Progress;

/// Longest line on stderr, in characters.
const LONGEST: usize = 4000;

/// Writes one line to stderr, its control characters escaped. Where stderr is full or closed, nobody can be told.
pub fn complain(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", one_line(&line.to_string(), LONGEST));
}

/// Writes remarks to stderr unless `--quiet` is given, and notices Ctrl-C.
pub struct Console {
    quiet: bool,
    stop: Arc<AtomicBool>,
}

impl Console {
    pub fn new(quiet: bool) -> Console {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // The first Ctrl-C stops at the next safe place, the second at once. If the handler can't be set, it is always at once.
        let _ = ctrlc::set_handler(move || {
            if stopped.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        });
        Console { quiet, stop }
    }

    /// False after Ctrl-C.
    pub fn should_continue(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    pub fn say(&self, remark: impl std::fmt::Display) {
        if !self.quiet {
            complain(remark);
        }
    }

    /// Takes artefacts of other weights of the same model, and says so once for each.
    pub fn other_weights(&self, taken: bool) -> OtherWeights {
        let (quiet, said) = (self.quiet, Mutex::new(BTreeSet::new()));
        match taken {
            false => OtherWeights::default(),
            true => OtherWeights::taken(move |line| {
                let is_new = said.lock().is_ok_and(|mut said| said.insert(line.to_owned()));
                if is_new && !quiet {
                    complain(line);
                }
            }),
        }
    }

    /// A progress bar, which shows on a terminal only.
    pub fn bar(&self, total: usize, stage: &'static str) -> Bar<'_> {
        self.styled(total, stage, "{prefix:>12} {wide_bar} {pos}/{len} {per_sec} {eta} {msg}")
    }

    /// A progress bar over bytes, whose total is set later.
    #[cfg(feature = "hub")]
    pub fn bytes(&self, stage: &'static str) -> Bar<'_> {
        self.styled(0, stage, "{prefix:>12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}")
    }

    fn styled(&self, total: usize, stage: &'static str, template: &str) -> Bar<'_> {
        if self.quiet {
            return Bar { bar: ProgressBar::hidden(), console: self };
        }
        let bar = ProgressBar::new(total as u64).with_prefix(stage);
        // The templates are constants; a wrong one would only cost the bar its looks.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Bar { bar, console: self }
    }

    /// A callback for work of several stages: a bar on a terminal, a line a stage elsewhere.
    pub fn stages(&self) -> impl FnMut(Progress) -> bool + '_ {
        let (begin, bar, mut stage) = (Instant::now(), self.bar(1, ""), "");
        move |progress| {
            if bar.bar.is_hidden() && progress.stage != stage {
                self.say(format!("{:6.1} s  {}", begin.elapsed().as_secs_f64(), progress.stage));
            }
            stage = progress.stage;
            bar.show(progress)
        }
    }
}

/// A progress bar that is cleared when it is dropped.
pub struct Bar<'a> {
    pub bar: ProgressBar,
    console: &'a Console,
}

impl Bar<'_> {
    /// Shows how much is done. False after Ctrl-C.
    pub fn done(&self, done: usize) -> bool {
        self.bar.set_position(done as u64);
        self.console.should_continue()
    }

    /// Shows a stage and how much of it is done. False after Ctrl-C.
    pub fn show(&self, progress: Progress) -> bool {
        self.bar.set_prefix(progress.stage);
        self.bar.set_length(progress.total as u64);
        self.done(progress.done)
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
