//! How the allocator and the system deal with this process' memory. It knows nothing of what the memory is for.

/// How soon the allocator gives unused pages back to the system: after so many milliseconds.
pub fn pages_go_back_after(milliseconds: std::ffi::c_long) {
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: the allocator takes any option and number.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds) };
}

/// Has the system give single pages where the allocator asks for large ones, of which each would be there whole as soon as
/// a byte of it is written. Where the system knows no such thing, memory is what it costs.
pub fn pages_stay_small() {
    // SAFETY: it says how this process is given memory from now on, and nothing about what it has.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}
