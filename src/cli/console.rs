//! Remarks and progress bars on stderr, and Ctrl-C.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
    /// The folder whose finished shards or trials are kept when the work stops.
    kept: Arc<Mutex<Option<PathBuf>>>,
    /// Whether the command has stopped by itself, and only prints what it has.
    is_ending: Arc<AtomicBool>,
}

/// How long a command has, after Ctrl-C, to stop by itself. Every file is written whole or not at all, whenever the process ends.
const GRACE: Duration = Duration::from_millis(1500);

/// Exit code of a command that was stopped.
pub const STOPPED: i32 = 130;

/// What a stopped command says: what is kept, if anything is.
fn stopped(kept: &Mutex<Option<PathBuf>>) -> String {
    let folder = kept.lock().ok().and_then(|folder| folder.clone());
    let files = folder.as_ref().and_then(|folder| std::fs::read_dir(folder).ok());
    let names =
        files.into_iter().flatten().flatten().map(|file| file.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.collect();
    let count = |is_part: fn(&&String) -> bool| names.iter().filter(is_part).count();
    let shards = count(|name| name.starts_with("shard-") && name.ends_with(".safetensors"));
    let trials = count(|name| name.strip_suffix(".json").is_some_and(|name| name.parse::<usize>().is_ok()));
    let kept = match (shards, trials) {
        (0, 0) => None,
        (0, trials) => Some(format!("{trials} finished trials")),
        (shards, _) => Some(format!("{shards} finished shards")),
    };
    match (folder, kept) {
        (Some(folder), Some(kept)) => format!(
            "pearl: stopped; {kept} in {} are kept, and the same command resumes from them",
            folder.display()
        ),
        _ => "pearl: stopped".into(),
    }
}

impl Console {
    pub fn new(quiet: bool) -> Console {
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, is_ending) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let (is_stopped, folder, ending) = (stop.clone(), kept.clone(), is_ending.clone());
        // The first Ctrl-C stops at the next safe place, or after a while wherever it is; the second at once. If the handler can't
        // be set, it is always at once.
        let _ = ctrlc::set_handler(move || {
            if is_stopped.swap(true, Ordering::SeqCst) {
                std::process::exit(STOPPED);
            }
            let (folder, ending) = (folder.clone(), ending.clone());
            std::thread::spawn(move || {
                std::thread::sleep(GRACE);
                if !ending.load(Ordering::SeqCst) {
                    complain(stopped(&folder));
                    std::process::exit(STOPPED);
                }
            });
        });
        Console { quiet, stop, kept, is_ending }
    }

    /// Names the folder whose finished shards or trials a stopped command keeps.
    pub fn keeps(&self, folder: &Path) {
        if let Ok(mut kept) = self.kept.lock() {
            *kept = Some(folder.to_owned());
        }
    }

    /// Says that the command was stopped, and what is kept.
    pub fn say_stopped(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
        complain(stopped(&self.kept));
    }

    /// Lets a command that has stopped by itself print what it has, however long that takes.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
    }

    /// False after Ctrl-C.
    pub fn should_continue(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// As [`Console::should_continue`], for another thread.
    #[cfg(feature = "serve")]
    pub fn stop_signal(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let stop = self.stop.clone();
        move || !stop.load(Ordering::SeqCst)
    }

    /// Says several lines.
    #[cfg(feature = "serve")]
    pub fn say_lines(&self, remarks: &str) {
        remarks.lines().for_each(|line| self.say(line));
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
