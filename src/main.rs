//! The program `pearl`: arguments in, a command run, an exit code out (0 done, 1 a check failed, 2 an error, 130 stopped).

mod cli;

use std::process::ExitCode;

use cli::Arguments;

/// Thousands of tensors are allocated and freed; the system's allocator would unmap their pages and fault them in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // SAFETY: no other thread has been started yet.
    unsafe { pearlpoint::runtime::set_up_threads_unchecked() };
    #[cfg(unix)]
    pearlpoint::artifact::exit_on_truncated_files();
    let arguments = match Arguments::parse_or_error() {
        Ok(arguments) => arguments,
        Err(error) => return cli::refuse(&error),
    };
    match cli::run(arguments) {
        Ok(outcome) => outcome.into(),
        // A reader that closes the pipe early (`pearl … | head`) is no error.
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(format_args!("pearl: {error}"));
            ExitCode::from(2)
        }
    }
}
