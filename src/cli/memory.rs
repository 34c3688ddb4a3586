//! Settings of the allocator and the kernel for this process's memory.

/// Has the allocator return unused pages to the kernel after this many milliseconds.
pub fn set_purge_delay(milliseconds: std::ffi::c_long) {
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: the allocator accepts any option and value.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds) };
}

/// Turns transparent huge pages off for this process: a huge page takes its whole size as soon as one byte of it is
/// written. Does nothing on systems without them.
pub fn disable_huge_pages() {
    // SAFETY: it changes how memory is mapped from now on, and nothing about what is mapped.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}
