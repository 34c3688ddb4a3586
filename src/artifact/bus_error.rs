//! A file that shrinks while it is mapped: the system sends SIGBUS to the thread that reads past its new end. The handler
//! here ends the process with one line that names the file, and exit code 2.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// The range of addresses of one mapped file. Slots are never freed, so that the handler can walk over them at any moment.
struct Slot {
    taken: AtomicBool,
    begin: AtomicUsize,
    end: AtomicUsize,
    message: AtomicPtr<u8>,
    length: AtomicUsize,
    next: Option<&'static Slot>,
}

static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

/// The handler that was there before: Rust's own, which tells a stack overflow on some systems.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapped file that the handler knows, until it is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    slot: &'static Slot,
    /// The line that the handler prints, which may not allocate.
    _message: Box<[u8]>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Slot")
    }
}

/// Adds a mapped file to those that the handler knows, with the line that it prints.
pub(super) fn watch(bytes: &[u8], line: &str) -> Watched {
    let mut message = format!("{line}\n").into_bytes().into_boxed_slice();
    let slot = free_slot();
    let begin = bytes.as_ptr() as usize;
    slot.message.store(message.as_mut_ptr(), Ordering::Relaxed);
    slot.length.store(message.len(), Ordering::Relaxed);
    slot.begin.store(begin, Ordering::Relaxed);
    slot.end.store(begin + bytes.len(), Ordering::Release);
    Watched { slot, _message: message }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.slot.end.store(0, Ordering::Release);
        self.slot.taken.store(false, Ordering::Release);
    }
}

fn first_slot() -> Option<&'static Slot> {
    // SAFETY: slots are leaked, so that a pointer to one is valid for ever.
    unsafe { SLOTS.load(Ordering::Acquire).as_ref() }
}

/// A slot that was given back, or a new one.
fn free_slot() -> &'static Slot {
    let mut next = first_slot();
    while let Some(slot) = next {
        if slot.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return slot;
        }
        next = slot.next;
    }
    let slot = Box::leak(Box::new(Slot {
        taken: true.into(),
        begin: 0.into(),
        end: 0.into(),
        message: AtomicPtr::default(),
        length: 0.into(),
        next: None,
    }));
    loop {
        let head = SLOTS.load(Ordering::Acquire);
        // SAFETY: slots are leaked, so that a pointer to one is valid for ever.
        slot.next = unsafe { head.as_ref() };
        if SLOTS.compare_exchange(head, slot, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return slot;
        }
    }
}

/// Sets the handler of SIGBUS for the rest of the process. A program calls it in `main`; a library that is embedded in
/// another program leaves signals alone.
pub fn exit_on_truncated_files() {
    BEFORE.get_or_init(|| {
        // SAFETY: zeroed structs of C are valid here; the handler is a function of the type that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut before: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, &mut before);
            before
        }
    });
}

/// Only what a signal handler may do: it reads atomics, writes to stderr and leaves.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes a valid `info` to a handler with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    let mut next = first_slot();
    while let Some(slot) = next {
        let end = slot.end.load(Ordering::Acquire);
        if (slot.begin.load(Ordering::Relaxed)..end).contains(&address) {
            // SAFETY: a slot whose range holds the address belongs to a file that is mapped now, whose message lives as long.
            unsafe {
                let (line, length) =
                    (slot.message.load(Ordering::Relaxed), slot.length.load(Ordering::Relaxed));
                libc::write(libc::STDERR_FILENO, line.cast(), length);
                libc::_exit(2);
            }
        }
        next = slot.next;
    }
    // Some other error: as if this handler were not there.
    // SAFETY: the handler before has the type that its flags say.
    unsafe {
        match BEFORE.get() {
            Some(before) if ![libc::SIG_DFL, libc::SIG_IGN].contains(&before.sa_sigaction) => {
                if before.sa_flags & libc::SA_SIGINFO != 0 {
                    let call: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                        std::mem::transmute(before.sa_sigaction);
                    call(signal, info, context);
                } else {
                    let call: extern "C" fn(libc::c_int) = std::mem::transmute(before.sa_sigaction);
                    call(signal);
                }
            }
            _ => drop(libc::signal(libc::SIGBUS, libc::SIG_DFL)),
        }
    }
}
