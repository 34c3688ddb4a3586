//! Bytes of a pipe, read once: bounded in length, and in the time that nothing comes.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a pipe without a writer is waited for: a shell opens the other end at about the same time.
const NO_WRITER: Duration = Duration::from_secs(1);

/// How long a writer may write nothing.
const NO_BYTE: Duration = Duration::from_secs(60);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// The bytes of a pipe, to the end that its writers leave; or what is wrong with it, as text.
///
/// # Errors
/// The system's.
pub(super) fn read(path: &Path, longest: u64) -> io::Result<Result<Vec<u8>, String>> {
    // Without O_NONBLOCK, opening would wait for a writer.
    let mut pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let mut since = Instant::now();
    loop {
        let waited = match pipe.read(&mut buffer) {
            Ok(0) if bytes.is_empty() => NO_WRITER,
            Ok(0) => return Ok(Ok(bytes)),
            Ok(length) => {
                bytes.extend_from_slice(&buffer[..length]);
                if bytes.len() as u64 > longest {
                    return Ok(Err(format!("a pipe with more than {} MiB", longest >> 20)));
                }
                since = Instant::now();
                continue;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => NO_BYTE,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if since.elapsed() > waited {
            return Ok(Err(format!("a pipe that nobody has written to for {} s", waited.as_secs())));
        }
        sleep(PAUSE);
    }
}
