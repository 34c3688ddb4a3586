//! The program `pearl`: arguments in, a command run, an exit code out.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use cli::Arguments;

/// Tensors come and go by the thousand; the system's allocator gives their pages back each time and faults them in anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // candle's own pool for element-wise work spins while it waits, which takes the cores from the products; and where
    // nothing says how many threads there are, candle asks the system at every product.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: no other thread has been started yet.
    unsafe {
        std::env::set_var("CANDLE_NUM_THREADS", "1");
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            std::env::set_var("RAYON_NUM_THREADS", threads.to_string());
        }
    }
    // Work is handed out by this thread, which is one of the pool's: were a pass run by whichever thread is free, each would keep
    // the memory that a pass takes. Where a pool can't be made so, the usual one is made when it is needed.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return cli::refuse(&error),
    };
    match cli::run(arguments) {
        Ok(outcome) => outcome.into(),
        // Whoever reads our output may close it early (`pearl … | head`): that is no error.
        Err(error) if cli::broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pearl: {error}");
            ExitCode::from(2)
        }
    }
}
