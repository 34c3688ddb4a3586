//! Threads of a process that runs models.

use std::sync::Once;

static ONCE: Once = Once::new();

/// Sets up rayon's and candle's threads, once a process. `Model::load` calls it.
///
/// It acts only in a process of one thread, because it sets environment variables: a program that starts threads of
/// its own calls it first in `main`. Without it everything works, but a forward pass is slower.
pub fn set_up_threads() {
    if is_only_thread() {
        // SAFETY: this is the only thread, so nothing reads the environment meanwhile.
        unsafe { set_up_threads_unchecked() };
    }
}

/// As [`set_up_threads`], for systems where the number of threads can't be read.
///
/// # Safety
/// No other thread is running.
pub unsafe fn set_up_threads_unchecked() {
    ONCE.call_once(|| {
        // candle's own pool for element-wise work spins while it waits, which takes the cores from the matrix products. And
        // without RAYON_NUM_THREADS, candle asks the system for the number of cores at every product.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: the caller promises that no other thread is running.
        unsafe {
            std::env::set_var("CANDLE_NUM_THREADS", "1");
            if std::env::var_os("RAYON_NUM_THREADS").is_none() {
                std::env::set_var("RAYON_NUM_THREADS", threads.to_string());
            }
        }
        // This thread is one of the pool's: were a pass run by whichever thread is free, each would keep the memory that a
        // pass takes. Where the pool exists already, it stays as it is.
        let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
    });
}

#[cfg(target_os = "linux")]
fn is_only_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

#[cfg(not(target_os = "linux"))]
fn is_only_thread() -> bool {
    false
}
